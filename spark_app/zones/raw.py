"""The raw zone as the stages read it: its files, their columns and their records."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import contract, records
from spark_app.data.contract import Contract, movies_contract, ratings_contract
from spark_app.data.dialect import Dialect, spark_options, split_fields
from spark_app.data.lines import as_text, upper_half, with_fields
from spark_app.platform import packed, s3, storage
from spark_app.platform.errors import InputError, StorageError
from spark_app.platform.log import logger
from spark_app.platform.session import is_on_one_machine
from spark_app.platform.settings import Raw, Settings
from spark_app.zones.manifest import RunRecord

SAMPLE_RECORDS = 1_000
FILES_AT_ONCE = 8
BATCH_RECORDS = 10_000
MAX_TASKS = 1_000

RECORDS = "value BINARY, file STRING, block_start BIGINT, row BIGINT, is_text BOOLEAN"
"""The columns of records that Python has read."""

ESCAPED_IN_URIS = re.compile(r"[\x00-\x20\x7f\"#%<>?\[\\\]^`{|}]")
"""The characters that Hadoop escapes in the paths of files."""


@dataclass(frozen=True)
class RawFile:
    """One file: its path, its columns and their types in the order of the file, and what decides how it is read.

    `header` is the header as delivered, None if there is none. `encoding` is that of its byte order mark or of the
    settings, `packed_as` the format it is packed in. `coded` names the columns, of userId and movieId, that need codes.
    `sha256` and `has_line_breaks` (inside quotes) are known once `note_inputs` has read the whole file.
    """

    path: str
    header: str | None
    columns: tuple[str, ...]
    types: tuple[str, ...]
    coded: frozenset[str] = frozenset()
    encoding: str = "utf-8"
    packed_as: str = ""
    sha256: str = ""
    has_line_breaks: bool = False

    def has_lines_for_spark(self, dialect: Dialect) -> bool:
        """Whether Spark's reader of text gives the records of the file, if no record has a line break inside quotes."""
        return (
            dialect.layout == "lines"
            and (self.encoding == "utf-8" or bool(upper_half(self.encoding)))
            and dialect.quote.isascii()
            and packed.can_hadoop_read(self.path, self.packed_as)
        )

    def is_read_by_spark(self, dialect: Dialect) -> bool:
        """Whether Spark's reader of text gives the records of the file."""
        return self.has_lines_for_spark(dialect) and not self.has_line_breaks


@dataclass(frozen=True)
class RawTable:
    """The files of one raw table. `location` is the path, folder or glob from which Spark reads all of them."""

    contract: Contract
    location: str
    files: list[RawFile]

    @property
    def coded(self) -> frozenset[str]:
        """The columns, of userId and movieId, that need codes in any file."""
        return frozenset().union(*(file.coded for file in self.files))


def find_files(raw: Raw, name: str) -> tuple[str, list[str]]:
    """The name under which a raw table exists, and its files; no files if there is no such name.

    It is the configured name, else the same with a suffix such as `.gz`, else the folder without `.csv`. Raises
    InputError if two of them exist, since only one can be the delivery, or if Spark would skip a file.
    """
    names = dict.fromkeys((name, *(f"{name}{suffix}" for suffix in packed.SUFFIXES), name.removesuffix(".csv")))
    existing = [(name, files) for name in names if (files := storage.list_files(raw.path, name))]
    # A glob and its alternatives can match the same files; the first that matches is the intended one.
    if len(existing) > 1 and not storage.is_glob(name):
        raise InputError(f"{raw.path} holds both {existing[0][0]} and {existing[1][0]}: remove one of them")
    for path in existing[0][1] if existing else []:
        if storage.name_of(path)[0] in "_." or ":" in storage.name_of(path):
            raise InputError(f"{path}: Spark does not read names that begin with _ or . or contain a colon: rename it")
    return existing[0] if existing else (name, [])


def survey(settings: Settings) -> tuple[RawTable | None, RawTable]:
    """Movies (None if raw.movies is empty) and ratings of the raw zone, checked against their contracts.

    Reads only the first records of each file. Raises InputError that names what is missing, empty or against the
    contract.
    """
    raw = settings.raw
    movies = movies_contract(settings.input, settings.movies_file)
    ratings = ratings_contract(settings.input, settings.ratings_file)
    return _survey_table(raw, raw.movies, movies) if raw.movies else None, _survey_table(raw, raw.ratings, ratings)


def note_inputs(record: RunRecord, movies: RawTable | None, ratings: RawTable) -> tuple[RawTable | None, RawTable]:
    """Read all files, and note path, size and SHA-256 of each as inputs of the run; noted files are not read again.

    Returns the tables with what is now known of their files. Raises InputError for a damaged file, before anything is
    written.
    """
    for table in (movies, ratings):
        if table:
            new = [file for file in table.files if not record.has_read(file.path)]
            with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
                for facts in pool.map(functools.partial(_describe, dialect=table.contract.dialect), new):
                    record.note_input(**facts)
    noted = {facts["path"]: facts for facts in record.inputs}
    return movies and _with_facts(movies, noted), _with_facts(ratings, noted)


def why_not_as_csv(table: RawTable) -> str:
    """Why Spark's own reader of CSV does not read the files of a table as we do; empty if it does."""
    dialect = table.contract.dialect
    for file in table.files:
        if not packed.can_hadoop_read(file.path, file.packed_as):
            return f"packed as {file.packed_as or 'nothing'}, and called {storage.name_of(file.path)}"
        if dialect.layout != "lines":
            return f"its layout is that of {dialect.layout}"
        if dialect.rest_in_last:
            return "its last column takes the rest of the line"
        if not spark_options(dialect, file.encoding, file.has_line_breaks):
            return f"its encoding is {file.encoding}"
        if file.encoding != table.files[0].encoding:
            return "its files have several encodings"
    return ""


def csv_options(table: RawTable) -> dict[str, str]:
    """The options of Spark's reader of CSV for the files of a table."""
    has_line_breaks = any(file.has_line_breaks for file in table.files)
    return spark_options(table.contract.dialect, table.files[0].encoding, has_line_breaks)


def read_fields(spark: SparkSession, table: RawTable) -> DataFrame:
    """Every record of a table as text fields.

    Columns: value (the record), file (URI), block_start and row (where in the file), is_text, is_header, the columns of
    the contract as text (null if the table has no such column; ids without spaces around them), and the checks of
    `with_fields`. Files with different columns are read separately, each by its own.
    """
    alike: dict[tuple[object, ...], list[RawFile]] = defaultdict(list)
    for file in table.files:
        by_spark = file.is_read_by_spark(table.contract.dialect)
        alike[by_spark, file.header, file.columns, file.encoding if by_spark else ""].append(file)
    frames = [
        fields_of(_lines(spark, files), files[0], table.contract)
        if by_spark
        else _fields_of_records(_records(spark, files, table.contract.dialect), files[0], table.contract)
        for (by_spark, *_), files in alike.items()
    ]
    return reduce(DataFrame.unionByName, frames)


def fields_of(lines: DataFrame, like: RawFile, expected: Contract) -> DataFrame:
    """The columns of `read_fields` for lines(value, file, block_start, row) of files like one, as Spark reads them."""
    # Blank lines are not records: every CSV reader skips them.
    return _fields_of_records(as_text(lines.filter(F.col("value") != ""), like.encoding), like, expected)


def _fields_of_records(found: DataFrame, like: RawFile, expected: Contract) -> DataFrame:
    """The columns of `read_fields` for records(value, is_text, file, block_start, row) of files like one."""
    is_header = F.lit(False) if like.header is None else F.col("value") == like.header
    fields = with_fields(found.withColumn("is_header", is_header), like.columns, expected.names, expected.dialect)
    if expected.dialect.decimal == "," and "rating" in expected.columns:
        fields = fields.withColumn("rating", F.translate("rating", ",.", ".,"))
    absent = {ours: F.lit(None).cast("string") for ours in expected.absent}
    trimmed_ids = {ours: F.trim(ours) for ours in contract.ID_COLUMNS & expected.columns.keys()}
    return fields.withColumns({**absent, **trimmed_ids})


def _lines(spark: SparkSession, files: list[RawFile]) -> DataFrame:
    return spark.read.text([storage.spark_path(file.path) for file in files]).select(
        "value",
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("block_start"),
        F.monotonically_increasing_id().alias("row"),
    )


def tasks_can_read(files: Sequence[RawFile]) -> bool:
    """Whether Python in Spark's tasks can read the files: on a cluster, S3 only with the credentials of a role."""
    is_in_s3 = any(s3.is_s3(file.path) for file in files)
    return not is_in_s3 or is_on_one_machine(SparkSession.active()) or s3.has_role()


def _records(spark: SparkSession, files: list[RawFile], dialect: Dialect) -> DataFrame:
    """Records of files that Spark's reader of text cannot cut; each file is read by one task.

    Raises StorageError where tasks cannot read the files by themselves.
    """
    if not tasks_can_read(files):
        raise StorageError(
            f"{files[0].path} is not lines of text for Spark, and Python in the tasks has no credentials to read it: "
            "give the executors a role, or deliver the file as lines of UTF-8"
        )
    numbers = spark.range(0, len(files), 1, min(len(files), MAX_TASKS))
    found = numbers.mapInArrow(functools.partial(_record_batches, files, dialect), RECORDS)
    return found.withColumn("value", F.col("value").cast("string"))


def _record_batches(
    files: Sequence[RawFile], dialect: Dialect, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The records of the files whose numbers are in the batches, as `RECORDS`."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield from _file_batches(files[number], dialect)


def _file_batches(file: RawFile, dialect: Dialect) -> Iterator[pa.RecordBatch]:
    uri = as_uri(file.path)
    with storage.reading(file.path) as content:
        found = records.records_of(content.stream, file.encoding, dialect, storage.name_of(file.path))
        row = 0
        while batch := list(islice(found, BATCH_RECORDS)):
            texts = [records.is_text(record) for record in batch]
            values = [
                record.encode() if text else records.as_delivered(record, file.encoding)
                for record, text in zip(batch, texts, strict=True)
            ]
            columns = {
                "value": pa.array(values, pa.binary()),
                "file": pa.array([uri] * len(batch), pa.string()),
                "block_start": pa.array([0] * len(batch), pa.int64()),
                "row": pa.array(range(row, row + len(batch)), pa.int64()),
                "is_text": pa.array(texts, pa.bool_()),
            }
            yield pa.RecordBatch.from_pydict(columns)
            row += len(batch)


def as_uri(path: str) -> str:
    """The path of a file as Spark names it in `_metadata.file_path`."""
    escaped = ESCAPED_IN_URIS.sub(lambda letter: f"%{ord(letter[0]):02X}", path)
    return escaped if "://" in path else f"file:{escaped}"


def _describe(file: RawFile, dialect: Dialect) -> dict[str, Any]:
    """The facts that identify a file, and whether it has line breaks inside quotes."""
    if not file.has_lines_for_spark(dialect):
        return {**asdict(storage.describe(file.path)), "has_line_breaks": False}
    breaks = records.LineBreaks(dialect, file.encoding)
    facts = storage.describe(file.path, breaks.see)
    return {**asdict(facts), "has_line_breaks": breaks.finish()}


def _with_facts(table: RawTable, noted: dict[str, dict[str, Any]]) -> RawTable:
    facts = [noted[file.path] for file in table.files]
    return replace(
        table,
        files=[
            replace(file, sha256=known["sha256"], has_line_breaks=known["has_line_breaks"])
            for file, known in zip(table.files, facts, strict=True)
        ],
    )


def _survey_table(raw: Raw, name: str, expected: Contract) -> RawTable:
    existing_name, paths = find_files(raw, name)
    if not paths:
        storage.check_readable(raw.path)
        raise InputError(
            f"{storage.join(raw.path, name)} is missing: check --raw-path, or run the stage 'ingest' first"
        )
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        samples = list(pool.map(lambda path: _sample(path, expected.dialect), paths))
    files = [_survey_file(sample, expected) for sample in samples if sample.records]
    wanted = expected.dialect.delimiter.join(expected.names.values())
    if not files:
        raise InputError(
            f"{storage.join(raw.path, existing_name)} is empty: expected "
            + (f"the header {wanted} and rows" if expected.dialect.columns is None else f"lines with {wanted}")
        )
    if expected.dialect.columns is None and not any(len(sample.records) > 1 for sample in samples):
        raise InputError(
            f"{storage.join(raw.path, existing_name)} has a header and no rows: deliver the data and run again"
        )
    location = storage.join(
        storage.spark_path(raw.path),
        existing_name if storage.is_glob(existing_name) else storage.spark_path(existing_name),
    )
    return RawTable(expected, location, files)


@dataclass(frozen=True)
class Sample:
    """The first records of a file, its encoding, and the format it is packed in."""

    path: str
    records: list[str]
    encoding: str
    packed_as: str


def _sample(path: str, dialect: Dialect) -> Sample:
    """A sample of a file; Spark writes empty files, so one without records is only worth a warning."""
    with storage.reading(path) as content:
        encoding = records.encoding_of(content.head, dialect.encoding)
        found = records.records_of(content.stream, encoding, dialect, storage.name_of(path))
        sample = Sample(path, list(islice(found, SAMPLE_RECORDS)), encoding, content.packed_as)
    if not sample.records:
        logger.warning("%s is empty and is skipped", path)
    return sample


def _survey_file(sample: Sample, expected: Contract) -> RawFile:
    """A file with its columns and types, from its first records."""
    path, dialect, first = sample.path, expected.dialect, sample.records[0]
    if not records.is_text(first):
        raise InputError(
            f"{path}: the first line is not {sample.encoding.upper()}: name the encoding in {dialect.section}.encoding"
        )
    if "\0" in first:
        raise InputError(
            f"{path}: the first line has NUL characters: if the file is UTF-16 without a byte order mark, set "
            f"{dialect.section}.encoding to utf-16-le or utf-16-be"
        )
    rows = [fields for record in sample.records if (fields := split_fields(record, dialect))]
    columns = contract.columns_of(expected, first, rows, path)
    header = first if dialect.columns is None else None
    data = rows if header is None else rows[1:]
    types = contract.infer_types(expected, columns, data)
    contract.check_types(expected, columns, types, path, data)
    coded = contract.coded_ids(expected, columns, data)
    return RawFile(path, header, columns, types, coded, sample.encoding, sample.packed_as)
