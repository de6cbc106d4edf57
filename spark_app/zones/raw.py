"""The raw zone as the stages read it: its files, their headers and their lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_app.data import contract
from spark_app.data.contract import Contract, movies_contract, ratings_contract
from spark_app.data.lines import with_fields
from spark_app.platform import storage
from spark_app.platform.errors import InputError, UsageError
from spark_app.platform.log import logger
from spark_app.platform.settings import MoviesFile, RatingsFile, Raw, Settings
from spark_app.zones.manifest import RunRecord

SAMPLE_LINES = 1_000
FILES_AT_ONCE = 8
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class RawFile:
    """One file: its path, its header line as delivered, its columns and their types in the order of the file.

    `coded` names the columns, of userId and movieId, that need codes.
    """

    path: str
    header: str
    types: dict[str, str]
    coded: frozenset[str] = frozenset()


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

    It is the configured name, else the same with `.gz`, else the folder without `.csv`. Raises InputError if two of
    them exist, since only one can be the delivery, or if Spark would skip a file.
    """
    names = dict.fromkeys((name, f"{name}.gz", name.removesuffix(".csv")))
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

    Reads only the first lines of each file. Raises InputError that names what is missing, empty or against the
    contract.
    """
    _check_supported(settings)
    raw = settings.raw
    movies = _survey_table(raw, raw.movies, movies_contract(settings.input)) if raw.movies else None
    return movies, _survey_table(raw, raw.ratings, ratings_contract(settings.input))


def _check_supported(settings: Settings) -> None:
    for section, usual in (("ratings_file", RatingsFile()), ("movies_file", MoviesFile())):
        for key, value in usual:
            if (wanted := getattr(getattr(settings, section), key)) != value:
                raise UsageError(f"{section}.{key} = {wanted!r} cannot be read yet: leave it out")


def read_fields(spark: SparkSession, table: RawTable) -> DataFrame:
    """Every line of a table as text fields.

    Columns: value, file (URI), block_start and row (where in the file), is_header, the columns of the contract as text
    (null if the table has no such column; ids without spaces around them), and the checks of `with_fields`. Files with
    different headers are read separately, each by its own header.
    """
    by_header: dict[str, list[RawFile]] = defaultdict(list)
    for file in table.files:
        by_header[file.header].append(file)
    frames = [fields_of(_lines(spark, files), files[0], table.contract) for files in by_header.values()]
    return reduce(DataFrame.unionByName, frames)


def fields_of(lines: DataFrame, like: RawFile, expected: Contract) -> DataFrame:
    """The columns of `read_fields` for lines(value, file, block_start, row) of files with the header of one file."""
    # Blank lines are not records: every CSV reader skips them.
    records = lines.filter(F.col("value") != "").withColumn("is_header", F.col("value") == like.header)
    absent = {ours: F.lit(None).cast("string") for ours in expected.absent}
    trimmed_ids = {ours: F.trim(ours) for ours in contract.ID_COLUMNS & expected.columns.keys()}
    fields = with_fields(records, list(like.types), expected.names, expected.delimiter)
    return fields.withColumns({**absent, **trimmed_ids})


def note_inputs(record: RunRecord, *tables: RawTable | None) -> dict[str, str]:
    """Note path, size and SHA-256 of each file as inputs of the run; files noted before are not read again.

    Returns the checksums by path. Raises InputError for a damaged `.gz`, before anything is written.
    """
    paths = [file.path for table in tables if table for file in table.files]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for facts in pool.map(storage.describe, [path for path in paths if not record.has_read(path)]):
            record.note_input(**asdict(facts))
    return {noted["path"]: noted["sha256"] for noted in record.inputs if noted["path"] in paths}


def _lines(spark: SparkSession, files: list[RawFile]) -> DataFrame:
    return spark.read.text([storage.spark_path(file.path) for file in files]).select(
        "value",
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("block_start"),
        F.monotonically_increasing_id().alias("row"),
    )


def _survey_table(raw: Raw, name: str, expected: Contract) -> RawTable:
    existing_name, paths = find_files(raw, name)
    if not paths:
        storage.check_readable(raw.path)
        raise InputError(
            f"{storage.join(raw.path, name)} is missing: check --raw-path, or run the stage 'ingest' first"
        )
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        samples = list(pool.map(lambda path: storage.first_lines(path, SAMPLE_LINES), paths))
    files = list(_survey_files(paths, samples, expected))
    if not files:
        raise InputError(
            f"{storage.join(raw.path, existing_name)} is empty: expected the header "
            f"{expected.delimiter.join(expected.names.values())} and rows"
        )
    if not any(sum(map(bool, sample)) > 1 for sample in samples):
        raise InputError(
            f"{storage.join(raw.path, existing_name)} has a header and no rows: deliver the data and run again"
        )
    location = storage.join(
        storage.spark_path(raw.path),
        existing_name if storage.is_glob(existing_name) else storage.spark_path(existing_name),
    )
    return RawTable(expected, location, files)


def _survey_files(paths: list[str], samples: list[list[bytes]], expected: Contract) -> Iterator[RawFile]:
    """Each file with its header and types, from its first lines; skips empty files, since Spark writes such parts."""
    for path, sample in zip(paths, samples, strict=True):
        lines = [line.decode("utf-8", errors="replace") for line in sample if line]
        if lines and REPLACEMENT in lines[0]:
            raise InputError(f"{path}: the header is not UTF-8: deliver the file in UTF-8")
        if not lines:
            logger.warning("%s is empty and is skipped", path)
            continue
        header, *rows = (contract.parse_line(line, expected.delimiter) for line in lines)
        contract.check_header(expected, header, path)
        types = contract.infer_columns(header, rows)
        contract.check_types(expected, types, path)
        yield RawFile(path, lines[0], types, contract.coded_ids(expected, header, rows))
