"""The raw zone as the stages read it: which files there are, what their headers say, and their lines."""

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
from spark_app.platform.errors import InputError
from spark_app.platform.log import logger
from spark_app.platform.settings import Raw, Settings
from spark_app.zones.manifest import RunRecord

SAMPLE_LINES = 1_000
FILES_AT_ONCE = 8
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class RawFile:
    """One file: its path, its header line as delivered, its columns and their types in the order of the file.

    `coded` are those of userId and movieId that need codes.
    """

    path: str
    header: str
    types: dict[str, str]
    coded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RawTable:
    """The files of one raw table, and the path, folder or glob that stands for all of them, as Spark takes it."""

    contract: Contract
    location: str
    files: list[RawFile]

    @property
    def coded(self) -> frozenset[str]:
        """Those of userId and movieId that need codes in any file."""
        return frozenset().union(*(file.coded for file in self.files))


def find_files(raw: Raw, name: str) -> tuple[str, list[str]]:
    """The name under which a raw table lies, and its files; no files where nothing is there.

    The configured name, else the same with `.gz`, else the folder without `.csv`. Raises InputError where two of them
    are there, since only one can be the delivery, or where Spark would pass over a file.
    """
    names = dict.fromkeys((name, f"{name}.gz", name.removesuffix(".csv")))
    found = [(name, files) for name in names if (files := storage.list_files(raw.path, name))]
    # The alternatives of a glob match one another's files; there the first that matches is what was meant.
    if len(found) > 1 and not storage.is_glob(name):
        raise InputError(f"{raw.path} holds both {found[0][0]} and {found[1][0]}: remove one of them")
    for path in found[0][1] if found else []:
        if storage.name_of(path)[0] in "_." or ":" in storage.name_of(path):
            raise InputError(f"{path}: Spark does not read names that begin with _ or . or contain a colon: rename it")
    return found[0] if found else (name, [])


def survey(settings: Settings) -> tuple[RawTable | None, RawTable]:
    """Movies (None where raw.movies is empty) and ratings of the raw zone, held against their contracts.

    Reads the first lines of each file only. Raises InputError naming what is missing, empty or not as the contract
    says.
    """
    raw = settings.raw
    movies = _survey_table(raw, raw.movies, movies_contract(settings.input)) if raw.movies else None
    return movies, _survey_table(raw, raw.ratings, ratings_contract(settings.input))


def read_fields(spark: SparkSession, table: RawTable) -> DataFrame:
    """Every line of a table as text fields.

    Columns: value, file (URI), block_start and row (where in the file), is_header, those of the contract as text (null
    where the table has none; ids without spaces around them), and the checks of `with_fields`. Files whose headers
    differ are read apart, each by its own.
    """
    by_header: dict[str, list[RawFile]] = defaultdict(list)
    for file in table.files:
        by_header[file.header].append(file)
    frames = [_read_files(spark, files, table.contract) for files in by_header.values()]
    nothing = {ours: F.lit(None).cast("string") for ours in table.contract.absent}
    bare = {ours: F.trim(ours) for ours in contract.ID_COLUMNS & table.contract.columns.keys()}
    return reduce(DataFrame.unionByName, frames).withColumns({**nothing, **bare})


def note_inputs(record: RunRecord, *tables: RawTable | None) -> dict[str, str]:
    """Note path, size and SHA-256 of each file as inputs of the run; files that it has noted are not read again.

    Returns the checksums by path. A damaged `.gz` is found here, before anything is written.
    """
    paths = [file.path for table in tables if table for file in table.files]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for facts in pool.map(storage.describe, [path for path in paths if not record.has_read(path)]):
            record.note_input(**asdict(facts))
    return {noted["path"]: noted["sha256"] for noted in record.inputs if noted["path"] in paths}


def _read_files(spark: SparkSession, files: list[RawFile], expected: Contract) -> DataFrame:
    lines = spark.read.text([storage.spark_path(file.path) for file in files]).select(
        "value",
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("block_start"),
        F.monotonically_increasing_id().alias("row"),
    )
    # Blank lines are no records: every CSV reader passes over them.
    records = lines.filter(F.col("value") != "").withColumn("is_header", F.col("value") == files[0].header)
    return with_fields(records, list(files[0].types), expected.names, expected.delimiter)


def _survey_table(raw: Raw, name: str, expected: Contract) -> RawTable:
    found, paths = find_files(raw, name)
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
            f"{storage.join(raw.path, found)} is empty: expected the header "
            f"{expected.delimiter.join(expected.names.values())} and rows"
        )
    if not any(sum(map(bool, sample)) > 1 for sample in samples):
        raise InputError(f"{storage.join(raw.path, found)} has a header and no rows: deliver the data and run again")
    location = storage.join(
        storage.spark_path(raw.path), found if storage.is_glob(found) else storage.spark_path(found)
    )
    return RawTable(expected, location, files)


def _survey_files(paths: list[str], samples: list[list[bytes]], expected: Contract) -> Iterator[RawFile]:
    """What the first lines of each file say; empty part files are passed over, as Spark writes them too."""
    for path, sample in zip(paths, samples, strict=True):
        lines = [line.decode("utf-8", errors="replace") for line in sample if line]
        if lines and REPLACEMENT in lines[0]:
            raise InputError(f"{path}: the header is not UTF-8: deliver the file in UTF-8")
        if not lines:
            logger.warning("%s is empty and is passed over", path)
            continue
        header, *rows = (contract.parse_line(line, expected.delimiter) for line in lines)
        contract.check_header(expected, header, path)
        types = contract.infer_columns(header, rows)
        contract.check_types(expected, types, path)
        yield RawFile(path, lines[0], types, contract.coded_ids(expected, header, rows))
