"""Running a command as a process of its own, with its time and its peak memory."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tqdm import tqdm

PAUSE = 0.1
"""Seconds between two looks at the memory."""

TOLD_LINES = 15


@dataclass(frozen=True)
class Measured:
    """Seconds from start to end, and the largest sum of resident memory over the process and all below it.

    Pages that several processes share count in each of them.
    """

    seconds: float
    peak_mb: int


class CommandError(Exception):
    """A command that was to be measured has failed."""


def measure(command: Sequence[str], folder: Path, log: Path, env: Mapping[str, str], label: str) -> Measured:
    """Run a command in a folder with both outputs in a log, and show on a terminal how it goes.

    Raises CommandError with the end of the log where the command fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    peak, started = 0, time.monotonic()
    with (
        log.open("wb") as output,
        tqdm(desc=label, bar_format="{desc} {elapsed}{postfix}", disable=None, leave=False) as shown,
    ):
        process = psutil.Popen(command, cwd=folder, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                peak = max(peak, _resident(process))
                shown.set_postfix_str(f"{peak // 2**20:,} MB at most")
                time.sleep(PAUSE)
        finally:
            seconds = time.monotonic() - started
            _end(process)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:]
        raise CommandError("\n".join([f"{label} has failed, with exit code {process.returncode} ({log}):", *last]))
    return Measured(seconds, peak // 2**20)


def _resident(process: psutil.Process) -> int:
    """Bytes of a process and all below it; what ends meanwhile counts as nothing."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def _end(process: psutil.Popen) -> None:
    """End a process and all below it where the benchmark is interrupted."""
    if process.poll() is None:
        for one in (*process.children(recursive=True), process):
            one.kill()
        process.wait()
