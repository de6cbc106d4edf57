"""Names of the files and tables in the processed zone, and the only mapping from these names to paths."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from delta.tables import DeltaTable
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.platform import delta, s3, storage
from spark_app.platform.arrow_files import Files, Rows, can_read, session_of
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.session import quiet_console, set_for_now
from spark_app.zones.manifest import RunRecord

MADE_BY = {
    "ratings": "etl",
    "unrated": "etl",
    "movies": "etl",
    "movie_stats": "etl",
    "rejects": "etl",
    "user_ids": "etl",
    "movie_ids": "etl",
    "user_features": "explore",
    "movie_features": "explore",
    "recommendations": "recommend",
    "popular_movies": "recommend",
    "similar_movies": "recommend",
}
"""Every Delta table of the processed zone, and the stage that makes it."""

RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
HOURS_PER_DAY = 24.0

LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
TASKS_PER_CORE = 4

COMMIT_NOTE = "spark.databricks.delta.commitInfo.userMetadata"
"""Delta's setting for the note of the commits of a session."""

MADE_FROM = "made_from"
"""The key of a commit's note that says what the rows were made from."""

MISREAD = re.compile(r"%[0-9A-Fa-f]{2}|\\")
"""What `deltalake` reads as in a URI. On a disk these are ordinary characters of a name."""

NEUTRAL = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES"})
"""Operations of Delta that do not change the rows of a table."""


@dataclass(frozen=True)
class Change:
    """A commit that changed the rows of a table: its version and time, its operation, and its note (JSON values)."""

    version: int
    at: datetime
    operation: str
    note: Mapping[str, Any]

    def __str__(self) -> str:
        """The version with its time, since a table made anew begins at version 0 again."""
        return f"{self.version} of {self.at.isoformat()}"


@dataclass(frozen=True)
class ProcessedZone:
    """The processed zone under one root. Raises UsageError for a root in which Delta tables could not be found."""

    root: str

    def __post_init__(self) -> None:
        if not s3.is_s3(self.root) and (misread := MISREAD.search(self.root)):
            raise UsageError(
                f"{self.root} has {misread.group()} in it, which Delta's libraries take for something else: "
                "choose another --processed-path"
            )

    @property
    def final(self) -> str:
        """Folder of the movie aggregates: one Parquet file, replaced in one step."""
        return storage.join(self.root, "final")

    @property
    def final_file(self) -> str:
        """The one file in `final`."""
        return storage.join(self.final, "movies.parquet")

    @property
    def recommendations_csv(self) -> str:
        """The recommendations of all users as one CSV object."""
        return storage.join(self.root, "recommendations", "movie_recommendations.csv")

    @property
    def similar_movies_csv(self) -> str:
        """The movies most similar to each movie as one CSV object."""
        return storage.join(self.root, "recommendations", "similar_movies.csv")

    @property
    def current_model(self) -> str:
        """The small file that names the published model."""
        return storage.join(self.models, "current.json")

    @property
    def models(self) -> str:
        """Folder of all models, one folder per run."""
        return storage.join(self.root, "models")

    def model(self, run_id: str) -> str:
        """Folder of the models that one run fitted."""
        return storage.join(self.models, run_id)

    def manifest(self, run_id: str) -> str:
        """The manifest of one run."""
        return storage.join(self.runs, f"{run_id}.json")

    @property
    def reports(self) -> str:
        """Folder of the reports, one HTML page per run."""
        return storage.join(self.root, "reports")

    def report(self, run_id: str) -> str:
        """The report of one run."""
        return storage.join(self.reports, f"{run_id}.html")

    @property
    def runs(self) -> str:
        """Folder of the manifests; their names begin with the time."""
        return storage.join(self.root, "runs")

    def manifests(self) -> list[str]:
        """The manifests of all runs, the latest first."""
        files = storage.list_files(self.runs) if storage.exists(self.runs) else []
        return sorted((path for path in files if path.endswith(".json")), reverse=True)

    @property
    def owed_to_catalog(self) -> str:
        """An empty file that is there while tables still have to be registered."""
        return storage.join(self.runs, "catalog.owed")

    @property
    def tuning(self) -> str:
        """Folder of the files that `tune` writes."""
        return storage.join(self.root, "tuning")

    @property
    def trials(self) -> str:
        """The database of the trials of `tune`."""
        return storage.join(self.tuning, "trials.db")

    @property
    def best_settings(self) -> str:
        """The best settings that `tune` found, for `--config`."""
        return storage.join(self.tuning, "best.toml")

    @property
    def staging(self) -> str:
        """Folder for files that are not published yet; removed when the run ends, or else when the next one begins."""
        return storage.join(self.root, "_staging")

    def table(self, name: str) -> str:
        """Folder of a Delta table."""
        return storage.join(self.root, "delta", name)

    def check_exists(self) -> None:
        """Raise InputError where no `etl` has written here; StorageError where S3 cannot be asked."""
        tables = storage.join(self.root, "delta")
        try:
            is_there = storage.exists(tables)
        except s3.failures() as error:
            raise storage.unreadable(tables, error) from error
        if not is_there:
            raise self._missing("ratings")

    def has_table(self, name: str) -> bool:
        """Whether a Delta table exists."""
        return delta.is_table(self.table(name))

    def read(self, spark: SparkSession, name: str) -> DataFrame:
        """A Delta table at its current version; later writes do not change the frame.

        If the table is missing, raises InputError that names the stage to run.
        """
        if not self.has_table(name):
            raise self._missing(name)
        return delta.frame(spark, self.table(name))

    def dataset(self, name: str) -> ds.Dataset:
        """A Delta table at its current version, to be read without Spark.

        If the table is missing, raises InputError that names the stage to run.
        """
        dataset = delta.dataset(self.table(name))
        if dataset is None:
            raise self._missing(name)
        return dataset

    def _missing(self, name: str) -> InputError:
        is_zone = storage.exists(storage.join(self.root, "delta"))
        hint = "" if is_zone else ", or correct --processed-path"
        return InputError(f"{self.table(name)} is missing: run the stage '{MADE_BY[name]}' first{hint}")

    def rows(self, name: str, where: ds.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Rows of a Delta table (those that match `where`), read without Spark. Raises InputError as `dataset` does."""
        return self.dataset(name).to_table(filter=where, columns=columns)

    def movie_ids(self) -> NDArray[np.int32]:
        """The ids of all movies, ascending."""
        ids: NDArray[np.int32] = np.sort(self.rows("movies", columns=["movieId"])["movieId"].to_numpy())
        return ids

    def input(self, spark: SparkSession, name: str, record: RunRecord) -> DataFrame:
        """Read a table of another stage, and note its version as an input of the run.

        A table that the run published itself is not noted.
        """
        frame = self.read(spark, name)
        self._note_input(name, record)
        return frame

    def input_by_user(self, spark: SparkSession, name: str, record: RunRecord) -> DataFrame | Files:
        """Read a table as its files, where tasks can read them and each has all rows of its users; else as a frame.

        The version is noted as `input` does.
        """
        if can_read(spark, self.root) and self.has_table(name):
            files = delta.files(spark, self.table(name))
            if files and files.grouped_by == "userId":
                self._note_input(name, record)
                return files
        return self.input(spark, name, record)

    def input_rows(self, name: str, record: RunRecord, columns: list[str]) -> pa.Table:
        """All rows of a table of another stage, read without Spark. The version is noted as `input` does."""
        rows = self.rows(name, columns=columns)
        self._note_input(name, record)
        return rows

    def _note_input(self, name: str, record: RunRecord) -> None:
        if not record.has_written(self.table(name)):
            record.note_input(self.table(name), version=delta.version(self.table(name)))

    def last_change(self, name: str) -> Change | None:
        """The latest commit that changed the rows of a Delta table, read without Spark; None if there is no table."""
        for commit in delta.history(self.table(name)):
            if commit["operation"] not in NEUTRAL:
                at = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
                return Change(commit["version"], at, commit["operation"], _as_note(commit.get("userMetadata")))
        return None

    def version(self, name: str) -> str | None:
        """The version of a Delta table that last changed its rows, with its time; None if there is no table."""
        change = self.last_change(name)
        return None if change is None else str(change)

    def versions(self, *names: str) -> dict[str, str | None]:
        """The `version` of each of these tables."""
        return {name: self.version(name) for name in names}

    def is_made_from(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Whether the rows of a Delta table were made from these facts (JSON values), as its note says."""
        change = self.last_change(name)
        return change is not None and change.note.get(MADE_FROM) == json.loads(json.dumps(facts))

    def overwrite(self, rows: Rows, name: str, /, **note: Any) -> None:
        """Replace a Delta table by rows, in one commit. The JSON values of `note` are added to the commit's note."""
        delta.write(rows, self.table(name), _with_note(session_of(rows), note))

    def compact(self, spark: SparkSession, name: str, history_days: int) -> None:
        """Merge the small files of a Delta table; remove files needed only by versions older than `history_days`.

        Files that are grouped by user stay as they are: they are few, and jobs read them as they are grouped.
        """
        table, files = DeltaTable.forPath(spark, self.table(name)), delta.files(spark, self.table(name))
        if not (files and files.grouped_by):
            table.optimize().executeCompaction()
        # Delta refuses less than a week, to protect concurrent writers; here there are none. By default it lists the
        # files of even the smallest table in 10,000 tasks.
        listing = str(TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
        with set_for_now(spark, {RETENTION_CHECK: "false", LISTING_TASKS: listing}), quiet_console(spark):
            table.vacuum(history_days * HOURS_PER_DAY)

    def replace_final(self, movies: pa.Table) -> None:
        """Write the movie aggregates as one Parquet file, which takes the place of the one before in one step."""
        with storage.writing(self.final_file) as stream:
            pq.write_table(movies, stream, store_schema=False)

    def replace_csv(self, frame: DataFrame, path: str) -> None:
        """Write sorted rows as parts in parallel, then join the parts to one CSV file that appears in one step."""
        staging = storage.join(self.staging, storage.name_of(path))
        frame.write.csv(
            staging,
            mode="overwrite",
            escape='"',
            emptyValue="",
            ignoreLeadingWhiteSpace=False,
            ignoreTrailingWhiteSpace=False,
        )
        header = ",".join(frame.columns) + "\n"
        storage.concatenate(header, storage.list_files(staging), path)

    def write_report(self, run_id: str, page: str) -> str:
        """Write the report of a run; returns its path."""
        storage.write_text(self.report(run_id), page)
        return self.report(run_id)

    def write_best_settings(self, toml: str) -> None:
        """Replace the settings that `tune` found."""
        storage.write_text(self.best_settings, toml)

    def delete_rejects(self, spark: SparkSession, run_ids: Sequence[str]) -> None:
        """Delete what some runs rejected, in one commit."""
        DeltaTable.forPath(spark, self.table("rejects")).delete(F.col("run_id").isin(list(run_ids)))

    def append(self, frame: DataFrame, name: str) -> None:
        """Add a frame to a Delta table, in one commit."""
        delta.write(frame, self.table(name), _with_note(frame.sparkSession, {}), append=True)

    def merge(
        self,
        frame: DataFrame,
        name: str,
        keys: Sequence[str],
        replace: str,
        values: Mapping[str, str],
        note: Mapping[str, Any],
    ) -> None:
        """Merge a frame with one row per key into a Delta table, in one commit, to whose note `note` is added.

        If a key is in both and the condition `replace` is true, the row of the table gets the `values`. Condition and
        values are SQL over the rows `old` and `new`. Rows with new keys are added.
        """
        spark = frame.sparkSession
        is_same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        merge = DeltaTable.forPath(spark, self.table(name)).alias("old").merge(frame.alias("new"), is_same)
        merge = merge.whenMatchedUpdate(condition=replace, set=dict(values)).whenNotMatchedInsertAll()
        with set_for_now(spark, {COMMIT_NOTE: _with_note(spark, note)}):
            merge.execute()


def noting_run(spark: SparkSession, run_id: str) -> contextlib.AbstractContextManager[None]:
    """Put the id of a run into the note of each Delta commit, so that the history of a table can be read."""
    return set_for_now(spark, {COMMIT_NOTE: json.dumps({"run_id": run_id})})


def _with_note(spark: SparkSession, more: Mapping[str, Any]) -> str:
    """The note of the commits of a session, with more values."""
    return json.dumps({**_as_note(spark.conf.get(COMMIT_NOTE, None)), **more})


def _as_note(text: str | None) -> dict[str, Any]:
    """The note of a commit; empty if it has none, or one that this package did not write."""
    with contextlib.suppress(ValueError):
        if isinstance(note := json.loads(text or ""), dict):
            return note
    return {}
