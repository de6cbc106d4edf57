"""Names of what lies in the processed zone, and the only mapping from those names to paths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession

from spark_app.platform import storage
from spark_app.platform.errors import InputError
from spark_app.zones.manifest import RunRecord

MADE_BY = {
    "ratings": "etl",
    "movies": "etl",
    "movie_stats": "etl",
    "rejects": "etl",
    "user_ids": "etl",
    "movie_ids": "etl",
    "user_features": "explore",
    "movie_features": "explore",
    "recommendations": "recommend",
}
"""Every Delta table of the processed zone, and the stage that makes it."""

RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
HOURS_A_DAY = 24.0

LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
TASKS_A_CORE = 4

COMMIT_NOTE = "spark.databricks.delta.commitInfo.userMetadata"
"""The setting of Delta for the note of a commit that no DataFrameWriter makes."""


@dataclass(frozen=True)
class ProcessedZone:
    """The processed zone under one root."""

    root: str

    @property
    def final(self) -> str:
        """Folder of the movie aggregates, Parquet: one file, replaced in one step."""
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
    def current_model(self) -> str:
        """The small file that names the published model."""
        return storage.join(self.models, "current.json")

    @property
    def models(self) -> str:
        """Folder of all models, a folder a run."""
        return storage.join(self.root, "models")

    def model(self, run_id: str) -> str:
        """Folder of the models that one run fitted."""
        return storage.join(self.models, run_id)

    def manifest(self, run_id: str) -> str:
        """The manifest of one run."""
        return storage.join(self.runs, f"{run_id}.json")

    @property
    def reports(self) -> str:
        """Folder of the reports, a page of HTML a run."""
        return storage.join(self.root, "reports")

    def report(self, run_id: str) -> str:
        """The report of one run."""
        return storage.join(self.reports, f"{run_id}.html")

    @property
    def runs(self) -> str:
        """Folder of the manifests; their names begin with the time."""
        return storage.join(self.root, "runs")

    @property
    def tuning(self) -> str:
        """Folder of what `tune` has tried and found."""
        return storage.join(self.root, "tuning")

    @property
    def trials(self) -> str:
        """The database of what `tune` has tried."""
        return storage.join(self.tuning, "trials.db")

    @property
    def best_settings(self) -> str:
        """The settings that `tune` has found, for `--config`."""
        return storage.join(self.tuning, "best.toml")

    @property
    def staging(self) -> str:
        """Folder for what the run has not published yet; removed when it ends, or else when the next begins."""
        return storage.join(self.root, "_staging")

    def table(self, name: str) -> str:
        """Folder of a Delta table."""
        return storage.join(self.root, "delta", name)

    def has_table(self, spark: SparkSession, name: str) -> bool:
        """Whether a Delta table is there."""
        return bool(DeltaTable.isDeltaTable(spark, self.table(name)))

    def read(self, spark: SparkSession, name: str) -> DataFrame:
        """A Delta table as it is now; the frame keeps to this version whatever is written later.

        Raises InputError naming the stage that makes the table where it is missing.
        """
        if not self.has_table(spark, name):
            raise InputError(f"{self.table(name)} is missing: run the stage '{MADE_BY[name]}' first")
        return spark.read.format("delta").load(self.table(name))

    def dataset(self, name: str) -> ds.Dataset:
        """A Delta table as it is now, to be read without Spark.

        Raises InputError naming the stage that makes the table where it is missing.
        """
        found = storage.delta_table(self.table(name))
        if found is None:
            raise InputError(f"{self.table(name)} is missing: run the stage '{MADE_BY[name]}' first")
        return found

    def rows(self, name: str, where: ds.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Some rows, or all, of a Delta table, read without Spark. Raises InputError as `dataset` does."""
        return self.dataset(name).to_table(filter=where, columns=columns)

    def input(self, spark: SparkSession, name: str, record: RunRecord) -> DataFrame:
        """Read a table that another stage has made, and note in the manifest which version it was.

        What the run has published itself is no input of it.
        """
        frame = self.read(spark, name)
        if record.has_written(self.table(name)):
            return frame
        record.note_input(self.table(name), version=self._latest(spark, name)["version"])
        return frame

    def version(self, spark: SparkSession, name: str) -> str:
        """Which version of a Delta table is there: also its time, since a table made anew begins at 0 again."""
        latest = self._latest(spark, name)
        return f"{latest['version']} of {latest['timestamp'].isoformat()}"

    def _latest(self, spark: SparkSession, name: str) -> Row:
        """The number and the time of the latest version of a Delta table."""
        history = DeltaTable.forPath(spark, self.table(name)).history(1)
        (latest,) = history.select("version", "timestamp").collect()
        return latest

    def overwrite(self, frame: DataFrame, name: str, note: str | None = None) -> None:
        """Replace a Delta table by a frame, in one commit, which carries the note."""
        writer = frame.write.format("delta").mode("overwrite").option("overwriteSchema", True)
        (writer.option("userMetadata", note) if note else writer).save(self.table(name))

    def compact(self, spark: SparkSession, name: str, history_days: int) -> None:
        """Make many small files of a Delta table few, and remove what only versions older than so many days need."""
        table = DeltaTable.forPath(spark, self.table(name))
        table.optimize().executeCompaction()
        # Delta refuses less than a week, for the sake of those who write meanwhile; here nobody does. And it would list
        # the files of the smallest table in 10,000 tasks.
        listing = str(TASKS_A_CORE * spark.sparkContext.defaultParallelism)
        with _set_for_now(spark, {RETENTION_CHECK: "false", LISTING_TASKS: listing}):
            table.vacuum(history_days * HOURS_A_DAY)

    def append(self, frame: DataFrame, name: str) -> None:
        """Add a frame to a Delta table, in one commit."""
        frame.write.format("delta").mode("append").save(self.table(name))

    def merge(
        self, frame: DataFrame, name: str, keys: Sequence[str], replace: str, values: Mapping[str, str], note: str
    ) -> None:
        """Merge a frame with one row a key into a Delta table, in one commit, which carries the note.

        Where a key is in both, and the condition `replace` holds, the table's row gets the `values`; both are SQL over
        the rows `old` and `new`. Rows with other keys are added.
        """
        spark = frame.sparkSession
        is_same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        merge = DeltaTable.forPath(spark, self.table(name)).alias("old").merge(frame.alias("new"), is_same)
        merge = merge.whenMatchedUpdate(condition=replace, set=dict(values)).whenNotMatchedInsertAll()
        with _set_for_now(spark, {COMMIT_NOTE: note}):
            merge.execute()


@contextlib.contextmanager
def _set_for_now(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Settings of Spark that hold for one command."""
    for key, value in values.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key in values:
            spark.conf.unset(key)
