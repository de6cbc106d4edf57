from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from spark_app.platform.errors import LockedError, StorageError
from spark_app.platform.lock import holding
from tests.platform.conftest import another_run


def assert_free(root: Path) -> None:
    with holding("processed", str(root), "next-run", 60):
        assert json.loads((root / "_lock.json").read_text())["run_id"] == "next-run"


def test_lock_makes_the_root_says_who_holds_it_and_lets_go(tmp_path: Path) -> None:
    root = tmp_path / "new" / "processed"
    with holding("processed", str(root), "run-1", 60):
        holder = json.loads((root / "_lock.json").read_text())
        assert (holder["run_id"], holder["pid"]) == ("run-1", os.getpid())
    assert not (root / "_lock.json").exists()
    assert_free(root)


def test_second_run_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    with another_run(str(tmp_path)) as process:
        holder = json.loads((tmp_path / "_lock.json").read_text())
        with pytest.raises(LockedError) as caught, holding("processed", str(tmp_path), "run-2", 60):
            pytest.fail("two runs hold one lock")
        assert str(caught.value) == (
            f"{tmp_path} is in use by run run-of-another (process {process.pid} on {holder['host']}, "
            f"since {holder['since']}); wait for it to end, or stop it"
        )
        assert (tmp_path / "_lock.json").exists(), "the holder keeps its note"
        process.communicate(timeout=30)
    assert_free(tmp_path)


def test_second_run_in_one_process_is_refused_too(tmp_path: Path) -> None:
    with holding("processed", str(tmp_path), "run-1", 60):
        with (
            pytest.raises(LockedError, match="is in use by run run-1 "),
            holding("processed", str(tmp_path), "run-2", 60),
        ):
            pytest.fail("two runs hold one lock")
        with holding("processed", str(tmp_path / "elsewhere"), "run-2", 60):
            pass


def test_killed_run_lets_go(tmp_path: Path) -> None:
    with another_run(str(tmp_path)) as process:
        process.kill()
        process.wait(timeout=30)
    assert (tmp_path / "_lock.json").exists(), "the killed run could not tidy up"
    assert_free(tmp_path)


def test_failed_run_lets_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), holding("processed", str(tmp_path), "run-1", 60):
        raise RuntimeError
    assert_free(tmp_path)


def test_holder_that_has_not_said_who_it_is_yet(tmp_path: Path) -> None:
    with another_run(str(tmp_path)):
        (tmp_path / "_lock.json").unlink()
        with pytest.raises(LockedError) as caught, holding("processed", str(tmp_path), "run-2", 60):
            pytest.fail("two runs hold one lock")
    assert str(caught.value) == (
        f"{tmp_path} is in use by another run that has only just started; wait for it to end, or stop it"
    )


def test_root_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.touch()
    with pytest.raises(StorageError) as caught, holding("processed", str(root), "run-1", 60):
        pytest.fail("a file is no folder")
    assert str(caught.value) == (
        f"cannot write to the processed zone {root}: File exists; check --processed-path and its permissions"
    )


def test_root_that_may_not_be_written_is_a_storage_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        privileged = os.geteuid() == 0
        try:
            if privileged:
                os.seteuid(65534)  # nobody: root overrides permissions
            with pytest.raises(StorageError) as caught, holding("processed", folder, "run-1", 60):
                pytest.fail("the folder may not be written")
        finally:
            if privileged:
                os.seteuid(0)
    assert str(caught.value) == (
        f"cannot write to the processed zone {folder}: Permission denied; check --processed-path and its permissions"
    )
