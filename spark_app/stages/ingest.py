"""The `ingest` stage: downloads, copies, unzips or generates the raw files; existing files are never overwritten."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.csv
from pyspark.sql import SparkSession

from spark_app.data import synthetic
from spark_app.platform import s3, storage
from spark_app.platform.download import download
from spark_app.platform.errors import InputError, JobError, UsageError
from spark_app.platform.lock import holding
from spark_app.platform.log import logger
from spark_app.platform.settings import Ingest, Settings
from spark_app.zones.ingested import NAMES, Origin, incoming_folder, is_intact, publish
from spark_app.zones.manifest import RunRecord

MOVIELENS = ("ml-latest-small", "ml-25m", "ml-32m")
SYNTHETIC = "synthetic"


class _TooLargeError(Exception):
    """A zip unpacks to more bytes than allowed."""


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Put `movies.csv` and `ratings.csv` under the raw root, from the first source that is available."""
    if not settings.ingest.source:
        logger.info("no source is set: the raw zone is used unchanged")
        return
    wanted = [_origin(source, settings.ingest) for source in settings.ingest.source]
    if is_intact(settings.raw, wanted):
        return
    if (settings.raw.movies, settings.raw.ratings) != NAMES:
        raise UsageError(f"ingest writes {' and '.join(NAMES)}: leave raw.movies and raw.ratings out, or ingest.source")
    with holding("raw", settings.raw.path, record.run_id, settings.storage.lease_seconds):
        if not is_intact(settings.raw, wanted):  # another run may have filled the zone by now
            _fill(settings, record)


def _fill(settings: Settings, record: RunRecord) -> None:
    """Publish the files of the first available source."""
    root, sources = settings.raw.path, settings.ingest.source
    incoming = incoming_folder(root)
    for place, source in enumerate(sources):
        try:
            _fetch(source, settings.ingest, root, incoming)
        except JobError as error:
            if place + 1 == len(sources):
                raise
            logger.warning("%s is unavailable (%s); trying %s next", source, error, sources[place + 1])
        else:
            publish(root, _origin(source, settings.ingest), record)
            return
        finally:
            storage.remove(incoming)


def _origin(source: str, ingest: Ingest) -> Origin:
    """The settings that determine the files of a source: its name; for `synthetic`, also the sizes and the seed."""
    if source != SYNTHETIC:
        return {"source": source}
    return {"source": source, **ingest.model_dump(include={"users", "movies", "ratings", "seed"})}


def _fetch(source: str, ingest: Ingest, root: str, incoming: str) -> None:
    """Fetch both files from a source into the folder `incoming`."""
    logger.info("ingesting %s into %s", source, root)
    if source in MOVIELENS:
        with _downloads(root) as folder:
            archive = storage.join(folder, f"{source}.zip")
            download(f"{ingest.base_url.rstrip('/')}/{source}.zip", archive)
            _unzip(archive, incoming, ingest.max_unzipped_bytes)
    elif source == SYNTHETIC:
        _generate(incoming, ingest)
    elif Path(source).is_dir():
        _copy_folder(Path(source), incoming)
    elif zipfile.is_zipfile(source):
        _unzip(source, incoming, ingest.max_unzipped_bytes)
    else:
        known = ", ".join((*MOVIELENS, SYNTHETIC))
        raise InputError(f"ingest.source {source} is neither one of {known} nor an existing folder or zip")


@contextmanager
def _downloads(root: str) -> Iterator[str]:
    """A folder for a download until it is complete and unpacked.

    A local root has it inside, so that the next run resumes a partial download. For a raw zone in S3 it is a temporary
    folder of this machine, which is removed when the run ends.
    """
    if s3.is_s3(root):
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    else:
        folder = storage.join(root, "_download")
        yield folder
        storage.remove(folder)


def _copy_folder(folder: Path, incoming: str) -> None:
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder / missing[0]} is missing: a source folder holds movies.csv and ratings.csv")
    for name in NAMES:
        with _opened(folder / name) as source:
            _copy(source, storage.join(incoming, name))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            yield stream
    except PermissionError as error:
        raise storage.unreadable(str(path), error) from error


def _copy(source: IO[bytes], path: str, max_bytes: int | None = None) -> int:
    """Copy a stream to a path; returns the number of bytes. Raises _TooLargeError above `max_bytes`."""
    copied = 0
    with storage.writing(path) as target:
        while chunk := source.read(storage.CHUNK):
            copied += len(chunk)
            if max_bytes is not None and copied > max_bytes:
                raise _TooLargeError
            target.write(chunk)
    return copied


def _unzip(archive: str, incoming: str, max_bytes: int) -> None:
    """Extract the two files from any folder of a zip; no other entry is written, whatever its name."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {name: _member(opened, name, archive) for name in NAMES}
            bytes_left = max_bytes
            for name, member in members.items():
                with opened.open(member) as source:
                    bytes_left -= _copy(source, storage.join(incoming, name), bytes_left)
    except _TooLargeError as error:
        raise InputError(f"{archive} unpacks to more than ingest.max_unzipped_bytes={max_bytes:,}: refused") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is not a whole zip file ({error}): fetch it again") from error


def _member(archive: zipfile.ZipFile, name: str, path: str) -> zipfile.ZipInfo:
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{path} has an entry that points out of it ({info.filename}): refused")
    matches = [info for info in archive.infolist() if PurePosixPath(info.filename).name == name]
    if len(matches) != 1:
        raise InputError(f"{path} holds {len(matches)} files named {name}: expected one")
    return matches[0]


def _generate(incoming: str, ingest: Ingest) -> None:
    """Generate both files in chunks of about a million ratings, so that memory does not grow with their number."""
    try:
        world = synthetic.make_world(ingest.users, ingest.movies, ingest.ratings, ingest.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    movies = synthetic.movie_rows(world, ingest.seed)
    _write_csv(storage.join(incoming, "movies.csv"), movies.schema, iter([movies]))
    _write_csv(
        storage.join(incoming, "ratings.csv"), synthetic.RATINGS_SCHEMA, synthetic.rating_chunks(world, ingest.seed)
    )


def _write_csv(path: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write tables as CSV in the style of MovieLens: a plain header, and quotes only around fields that need them."""
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed")
    with storage.writing(path) as stream:
        stream.write((",".join(schema.names) + "\n").encode())
        with pa.csv.CSVWriter(stream, schema, write_options=options) as writer:
            for table in tables:
                writer.write(table)
