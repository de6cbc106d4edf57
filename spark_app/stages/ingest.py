"""Movies and ratings into the raw zone: downloaded, copied, unzipped or generated; never overwritten while intact."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

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
from spark_app.zones.manifest import RunRecord
from spark_app.zones.raw import find_files

NAMES = ("movies.csv", "ratings.csv")
MOVIELENS = ("ml-latest-small", "ml-25m", "ml-32m")
SYNTHETIC = "synthetic"
RECORD = "_ingest.json"


class _TooLargeError(Exception):
    """More came out of a zip than may."""


def run(spark: SparkSession, settings: Settings, record: RunRecord) -> None:
    """Put `movies.csv` and `ratings.csv` under the raw root, from the first source that can be had."""
    if not settings.ingest.source:
        logger.info("no source is set: the raw zone is used as it is")
        return
    if _is_intact(settings):
        return
    if (settings.raw.movies, settings.raw.ratings) != NAMES:
        raise UsageError(f"ingest writes {' and '.join(NAMES)}: leave raw.movies and raw.ratings out, or ingest.source")
    with holding("raw", settings.raw.path, record.run_id, settings.storage.lease_seconds):
        if not _is_intact(settings):  # another run may have filled the zone by now
            _fill(settings, record)


def _fill(settings: Settings, record: RunRecord) -> None:
    """Publish the files of the first source that can be had."""
    root, sources = settings.raw.path, settings.ingest.source
    incoming = storage.join(root, "_incoming")
    for place, source in enumerate(sources):
        try:
            _fetch(source, settings.ingest, root, incoming)
        except JobError as error:
            if place + 1 == len(sources):
                raise
            logger.warning("%s: not to be had (%s); next is %s", source, error, sources[place + 1])
        else:
            _publish(root, incoming, _origin(source, settings.ingest), record)
            return
        finally:
            storage.remove(incoming)


def _origin(source: str, ingest: Ingest) -> dict[str, Any]:
    """What decides the content of the files that a source gives, as far as the settings know."""
    if source != SYNTHETIC:
        return {"source": source}
    return {"source": source, **ingest.model_dump(include={"users", "movies", "ratings", "seed"})}


def _is_intact(settings: Settings) -> bool:
    """Whether the raw zone holds what an earlier ingest put there, or files of somebody else, which are left alone.

    Raises UsageError where it holds another source than those asked for, InputError where a file was changed since.
    """
    raw = settings.raw
    wanted = [_origin(source, settings.ingest) for source in settings.ingest.source]
    record_path = storage.join(raw.path, RECORD)
    if not storage.exists(record_path):
        present = [name for name in (raw.movies, raw.ratings) if find_files(raw, name)[1]]
        if len(present) == len(NAMES):
            logger.info("%s has files that ingest did not put there: they are used as they are", raw.path)
            return True
        if present:
            raise UsageError(
                f"{raw.path} holds {present[0]} but not the other file: complete it, or choose another --raw-path"
            )
        return False
    record = storage.read_json(record_path)
    if record["origin"] not in wanted:
        raise UsageError(
            f"{raw.path} holds {_told(record['origin'])}, not {' or '.join(map(_told, wanted))}: "
            "choose another --raw-path"
        )
    is_whole = True
    for name, checksum in record["files"].items():
        path = storage.join(raw.path, name)
        if not storage.exists(path):
            logger.warning("%s is missing: fetching it again", path)
            is_whole = False
        elif storage.describe(path).sha256 != checksum:
            raise InputError(
                f"{path} was changed since ingest put it there: remove it to have it fetched again, "
                f"or remove {record_path} to use it as it is"
            )
    if is_whole:
        logger.info("%s is already there and intact (%s)", raw.path, _told(record["origin"]))
    return is_whole


def _told(origin: dict[str, Any]) -> str:
    details = ", ".join(f"{key}={value}" for key, value in origin.items() if key != "source")
    return f"{origin['source']} ({details})" if details else str(origin["source"])


def _publish(root: str, incoming: str, origin: dict[str, Any], record: RunRecord) -> None:
    """Move the files that are missing into the raw zone, once it is written down what they are.

    A run that is cut short is thus mended by the next. Raises InputError where a file is there already, from a source
    that has changed since.
    """
    files = {name: storage.describe(storage.join(incoming, name)).sha256 for name in NAMES}
    missing = [name for name in NAMES if not storage.exists(storage.join(root, name))]
    for name in NAMES:
        if name not in missing and storage.describe(storage.join(root, name)).sha256 != files[name]:
            raise InputError(f"{_told(origin)} is no longer what {storage.join(root, name)} came from: empty {root}")
    storage.write_json(storage.join(root, RECORD), {"origin": origin, "files": files})
    for name in missing:
        storage.publish(storage.join(incoming, name), storage.join(root, name))
        record.note_output(storage.join(root, name))


def _fetch(source: str, ingest: Ingest, root: str, incoming: str) -> None:
    """Bring both files from a source into the folder `incoming`."""
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
        raise InputError(f"ingest.source {source} is neither one of {known} nor a folder or zip that is there")


@contextmanager
def _downloads(root: str) -> Iterator[str]:
    """The folder where a download waits until it is whole and unpacked.

    It lies under the root, where the next run goes on with what there is; for a raw zone in S3 it lies on this machine,
    until the run ends.
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


def _copy(source: IO[bytes], path: str, most: int | None = None) -> int:
    """Copy a stream to a path, at most so many bytes; returns how many."""
    copied = 0
    with storage.writing(path) as target:
        while chunk := source.read(storage.CHUNK):
            copied += len(chunk)
            if most is not None and copied > most:
                raise _TooLargeError
            target.write(chunk)
    return copied


def _unzip(archive: str, incoming: str, most: int) -> None:
    """Take the two files out of a zip, wherever in it they are; nothing else is written, whatever its names say."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {name: _member(opened, name, archive) for name in NAMES}
            left = most
            for name, member in members.items():
                with opened.open(member) as source:
                    left -= _copy(source, storage.join(incoming, name), left)
    except _TooLargeError as error:
        raise InputError(f"{archive} unpacks to more than ingest.max_unzipped_bytes={most:,}: refused") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is not a whole zip file ({error}): fetch it again") from error


def _member(archive: zipfile.ZipFile, name: str, path: str) -> zipfile.ZipInfo:
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{path} has an entry that points out of it ({info.filename}): refused")
    found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == name]
    if len(found) != 1:
        raise InputError(f"{path} holds {len(found)} files named {name}: expected one")
    return found[0]


def _generate(incoming: str, ingest: Ingest) -> None:
    """Write generated files in chunks of about a million ratings; memory does not grow with their number."""
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
    """Write tables as CSV like MovieLens': a plain header, and quotes only around fields that need them."""
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed")
    with storage.writing(path) as stream:
        stream.write((",".join(schema.names) + "\n").encode())
        with pa.csv.CSVWriter(stream, schema, write_options=options) as writer:
            for table in tables:
                writer.write(table)
