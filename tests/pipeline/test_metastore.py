"""A metastore that somebody else holds, as an open spark-sql does, is no reason to end a nightly run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.pipeline.conftest import Submit, Zones

pytestmark = pytest.mark.long


def test_a_taken_metastore_is_a_warning_and_tables_are_registered_by_the_next_run(
    submit: Submit, zones: Zones, config: str, tmp_path: Path
) -> None:
    owed = zones.processed / "runs" / "catalog.owed"
    options = zones.options("--config", config, "--set", "train.when=new")
    assert submit("ingest", "--raw-path", str(zones.raw), "--config", config, folder=tmp_path).returncode == 0
    options += ["--set", "ingest.source="]
    assert submit("catalog", *options, folder=tmp_path).returncode == 0  # makes the metastore
    with (tmp_path / "metastore" / "db" / "dbex.lck").open("r+b") as held:
        # Derby locks this file for as long as it has the database open. Java's locks are those of the system.
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = submit("pipeline", *options, folder=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "another process holds the metastore (metastore/db): no tables are registered now" in done.stdout
    assert zones.recommendations()
    assert owed.is_file()
    assert not [name for name in zones.manifests()[-1]["outputs"] if name.startswith("movie_reco")]

    again = submit("pipeline", *options, folder=tmp_path)
    assert again.returncode == 0, again.stdout[-3000:]
    assert not owed.exists()
    last = zones.manifests()[-1]
    assert "movie_reco_db.recommendations" in last["outputs"]
    assert {stage["stage"]: stage["status"] for stage in last["stages"]}["train"] == "nothing new"

    at_once = submit("pipeline", *options, folder=tmp_path)
    last = zones.manifests()[-1]
    assert at_once.returncode == 0, at_once.stdout[-3000:]
    assert last["status"] == "nothing new", last["stages"]
