"""Names of the files and tables in the processed zone, and the only mapping from these names to paths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from spark_app.platform import s3, storage
from spark_app.platform.errors import InputError
from spark_app.platform.session import quiet_console
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
"""Delta's setting for the note of a commit that is not made by a DataFrameWriter."""


@dataclass(frozen=True)
class ProcessedZone:
    """The processed zone under one root."""

    root: str

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
        except s3.FAILURES as error:
            raise storage.unreadable(tables, error) from error
        if not is_there:
            ratings = self.table("ratings")
            raise InputError(f"{ratings} is missing: run the stage 'etl' first, or correct --processed-path")

    def has_table(self, spark: SparkSession, name: str) -> bool:
        """Whether a Delta table exists."""
        return bool(DeltaTable.isDeltaTable(spark, self.table(name)))

    def read(self, spark: SparkSession, name: str) -> DataFrame:
        """A Delta table at its current version; later writes do not change the frame.

        If the table is missing, raises InputError that names the stage to run.
        """
        if not self.has_table(spark, name):
            raise InputError(f"{self.table(name)} is missing: run the stage '{MADE_BY[name]}' first")
        return spark.read.format("delta").load(self.table(name))

    def dataset(self, name: str) -> ds.Dataset:
        """A Delta table at its current version, to be read without Spark.

        If the table is missing, raises InputError that names the stage to run.
        """
        dataset = storage.delta_table(self.table(name))
        if dataset is None:
            raise InputError(f"{self.table(name)} is missing: run the stage '{MADE_BY[name]}' first")
        return dataset

    def rows(self, name: str, where: ds.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Rows of a Delta table (those that match `where`), read without Spark. Raises InputError as `dataset` does."""
        return self.dataset(name).to_table(filter=where, columns=columns)

    def input(self, spark: SparkSession, name: str, record: RunRecord) -> DataFrame:
        """Read a table of another stage, and note its version as an input of the run.

        A table that the run published itself is not noted.
        """
        frame = self.read(spark, name)
        if record.has_written(self.table(name)):
            return frame
        record.note_input(self.table(name), version=self._latest(spark, name)["version"])
        return frame

    def version(self, spark: SparkSession, name: str) -> str:
        """The current version of a Delta table, with its time, since a table made anew begins at version 0 again."""
        latest = self._latest(spark, name)
        return f"{latest['version']} of {latest['timestamp'].isoformat()}"

    def _latest(self, spark: SparkSession, name: str) -> Row:
        """The number and the time of the latest version of a Delta table."""
        history = DeltaTable.forPath(spark, self.table(name)).history(1)
        (latest,) = history.select("version", "timestamp").collect()
        return latest

    def overwrite(self, frame: DataFrame, name: str, note: str | None = None) -> None:
        """Replace a Delta table by a frame, in one commit that carries the note."""
        writer = frame.write.format("delta").mode("overwrite").option("overwriteSchema", True)
        (writer.option("userMetadata", note) if note else writer).save(self.table(name))

    def compact(self, spark: SparkSession, name: str, history_days: int) -> None:
        """Merge the small files of a Delta table; remove files needed only by versions older than `history_days`."""
        table = DeltaTable.forPath(spark, self.table(name))
        table.optimize().executeCompaction()
        # Delta refuses less than a week, to protect concurrent writers; here there are none. By default it lists the
        # files of even the smallest table in 10,000 tasks.
        listing = str(TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
        with _set_for_now(spark, {RETENTION_CHECK: "false", LISTING_TASKS: listing}), quiet_console(spark):
            table.vacuum(history_days * HOURS_PER_DAY)

    def replace_final(self, frame: DataFrame) -> None:
        """Write the movie aggregates as one Parquet file, which takes the place of the one before in one step."""
        staging = storage.join(self.staging, "final")
        frame.coalesce(1).write.mode("overwrite").parquet(staging)
        (part,) = storage.list_files(staging)
        storage.publish(part, self.final_file)

    def replace_csv(self, frame: DataFrame, path: str) -> None:
        """Write sorted rows as parts in parallel, then join the parts to one CSV file that appears in one step.

        The format is RFC 4180: commas, doubled quotes. Cells have the data unchanged, even if a title begins with a
        sign that a spreadsheet takes for a formula.
        """
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
        frame.write.format("delta").mode("append").save(self.table(name))

    def merge(
        self, frame: DataFrame, name: str, keys: Sequence[str], replace: str, values: Mapping[str, str], note: str
    ) -> None:
        """Merge a frame with one row per key into a Delta table, in one commit that carries the note.

        If a key is in both and the condition `replace` is true, the row of the table gets the `values`. Condition and
        values are SQL over the rows `old` and `new`. Rows with new keys are added.
        """
        spark = frame.sparkSession
        is_same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        merge = DeltaTable.forPath(spark, self.table(name)).alias("old").merge(frame.alias("new"), is_same)
        merge = merge.whenMatchedUpdate(condition=replace, set=dict(values)).whenNotMatchedInsertAll()
        with _set_for_now(spark, {COMMIT_NOTE: note}):
            merge.execute()


@contextlib.contextmanager
def _set_for_now(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Set settings of Spark for one command, and unset them after it."""
    for key, value in values.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key in values:
            spark.conf.unset(key)
