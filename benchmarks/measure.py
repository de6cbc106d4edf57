"""Runs a command as a process of its own, and measures its time and its peak memory."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tqdm import tqdm

PAUSE = 0.05
"""Seconds between two looks whether the process still runs."""

READ_EVERY = 1.0
"""Seconds between two readings of the memory. To count shared pages once, Linux walks through all pages: ten readings
a second slow a process of 5 GB down by a quarter."""

LOG_LINES = 15
"""Lines from the end of the log that an error shows."""


@dataclass(frozen=True)
class Measured:
    """Seconds from start to end, and the peak memory in MB.

    The peak is the largest sum of resident memory over the process and its descendants, read once a second. A page that
    several processes share counts once where the system tells (Linux: PSS), else once for each.
    """

    seconds: float
    peak_mb: int


class CommandError(Exception):
    """A measured command failed."""


def measure(command: Sequence[str], folder: Path, log: Path, env: Mapping[str, str], label: str) -> Measured:
    """Run a command in a folder and measure it.

    Its standard output and standard error go to `log`; a progress line with `label` is shown on a terminal. Raises
    CommandError with the end of the log where the command fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    peak, started = 0, time.monotonic()
    with (
        log.open("wb") as output,
        tqdm(desc=label, bar_format="{desc} {elapsed}{postfix}", disable=None, leave=False) as progress,
    ):
        process = psutil.Popen(command, cwd=folder, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        read_at = -math.inf
        try:
            while process.poll() is None:
                if time.monotonic() - read_at >= READ_EVERY:
                    read_at = time.monotonic()
                    peak = max(peak, _resident(process))
                    progress.set_postfix_str(f"{peak // 2**20:,} MB at most")
                time.sleep(PAUSE)
        finally:
            seconds = time.monotonic() - started
            _end(process)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        raise CommandError("\n".join([f"{label} failed with exit code {process.returncode}; see {log}:", *last]))
    return Measured(seconds, peak // 2**20)


def _resident(process: psutil.Process) -> int:
    """Resident bytes of a process and its descendants; a process that ends meanwhile counts as 0."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            try:
                memory = member.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def _end(process: psutil.Popen) -> None:
    """Kill a process that still runs, and its descendants: the benchmark was interrupted."""
    if process.poll() is None:
        for member in (*process.children(recursive=True), process):
            member.kill()
        process.wait()
