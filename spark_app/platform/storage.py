"""Small objects and file listings through fsspec: the same code for a disk and, by URI, for an object store."""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import json
import posixpath
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import fsspec
import pyarrow.dataset as ds
from deltalake import DeltaTable
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from spark_app.platform import s3
from spark_app.platform.errors import InputError, JobError, StorageError

CHUNK = 1 << 20


@dataclass(frozen=True)
class FileFacts:
    """What identifies one raw file: its URI, size in bytes, and SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


def normalise(root: str) -> str:
    """A root as both Spark and fsspec take it: absolute for local paths, `s3://` for all of S3, no slash at the end.

    Every path is made absolute here, once: a relative one would mean another folder on another working directory.
    """
    if s3.is_s3(root):
        return join(f"{s3.SCHEME}://", *(part for part in s3.split(root) if part)).rstrip("/")
    _, path = fsspec.core.url_to_fs(root)
    return posixpath.normpath(str(path))  # as Hadoop does it: `..` by name, whatever links there are


def spark_path(path: str) -> str:
    """The path as Hadoop takes it literally: with the characters escaped that it would read as a glob."""
    special = set("{}[]*?\\")
    return "".join("\\" + letter if letter in special else letter for letter in path)


def join(root: str, *parts: str) -> str:
    """A path under a root; its separator is `/` everywhere."""
    return posixpath.join(root, *parts)


def name_of(path: str) -> str:
    """The last part of a path."""
    return posixpath.basename(path)


def exists(path: str) -> bool:
    """Whether there is anything at a path."""
    return bool(_filesystem(path).exists(path))


def is_glob(name: str) -> bool:
    """Whether a name stands for all that match it."""
    return glob.has_magic(name)


def list_files(root: str, name: str = "") -> list[str]:
    """The data files that a file, a folder or a glob under a root stands for, sorted; none where nothing is there.

    In folders and globs, names that begin with `_` or `.` are not data, by the convention of Hadoop. Raises InputError
    where one holds a folder: its files would be passed over.
    """
    filesystem, path = _filesystem(root), join(root, name).rstrip("/")
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        check_readable(path)
        found = filesystem.ls(path, detail=True)
    else:
        found = filesystem.glob(join(glob.escape(root), name), detail=True).values()
    # In S3 a folder may have an object of its own, with a slash at the end of its name.
    data = {_uri(filesystem, entry["name"]): entry["type"] for entry in found if not entry["name"].endswith("/")}
    data = {uri: data[uri] for uri in sorted(data) if name_of(uri)[0] not in "_."}
    for uri, kind in data.items():
        if kind != "file" and filesystem.isdir(uri):
            raise InputError(f"{uri} is a folder where a file should be: name its files by a glob such as part/*.csv")
    return list(data)


def list_folders(path: str) -> list[str]:
    """The folders in a folder, sorted; none where nothing is there."""
    filesystem = _filesystem(path)
    if not filesystem.isdir(path):
        return []
    found = filesystem.ls(path, detail=True)
    return sorted(_uri(filesystem, entry["name"]).rstrip("/") for entry in found if entry["type"] == "directory")


def check_readable(folder: str) -> None:
    """Raise InputError where a folder is there but may not be looked into."""
    try:
        _filesystem(folder).ls(folder)
    except FileNotFoundError:
        return
    except s3.FAILURES as error:
        raise unreadable(folder, error) from error


def read_text(path: str) -> str:
    """The whole of a small UTF-8 text, by one request: between two another run may put a new one in its place."""
    return bytes(_filesystem(path).cat_file(path)).decode("utf-8")


@contextlib.contextmanager
def reading_text(path: str) -> Iterator[IO[str]]:
    """Open a UTF-8 text to read it line by line, line ends as they are."""
    with _filesystem(path).open(path, "r", encoding="utf-8", newline="") as stream:
        yield stream


def read_json(path: str) -> Any:
    """The value in a JSON file."""
    return json.loads(read_text(path))


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 text that appears whole or not at all."""
    if s3.is_s3(path):
        with _telling_why_not(path):
            _filesystem(path).pipe_file(path, text.encode("utf-8"))  # in one request
        return
    with writing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextlib.contextmanager
def writing(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` at the end, or leaves it untouched where writing fails."""
    with _telling_why_not(path), _uploading(path) if s3.is_s3(path) else _writing_beside(path) as stream:
        yield stream


@contextlib.contextmanager
def _telling_why_not(path: str) -> Iterator[None]:
    try:
        yield
    except s3.FAILURES as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error


@contextlib.contextmanager
def _uploading(path: str) -> Iterator[IO[bytes]]:
    """An object that is there once its upload is completed, not before."""
    stream = _filesystem(path).open(path, "wb", autocommit=False)
    try:
        yield stream
        stream.close()
        stream.commit()
    except BaseException:
        with contextlib.suppress(*s3.FAILURES):
            stream.discard()
        stream.closed = True  # or it would be completed when it is collected
        raise


@contextlib.contextmanager
def _writing_beside(path: str) -> Iterator[IO[bytes]]:
    """A file under another name that is given its own at the end."""
    filesystem = _filesystem(path)
    partial = join(posixpath.dirname(path), f".{name_of(path)}.partial")
    try:
        make_folder(posixpath.dirname(path))
        with filesystem.open(partial, "wb") as stream:
            yield stream
        filesystem.mv(partial, path)
    finally:
        with contextlib.suppress(OSError):
            filesystem.rm(partial)


def make_folder(path: str) -> None:
    """Make a folder where it is missing, and those above it; in S3 there is nothing to make."""
    if not s3.is_s3(path):
        _filesystem(path).makedirs(path, exist_ok=True)


def publish(part: str, path: str) -> None:
    """Put a finished file in the place of another in one step: readers see the old one or the new one."""
    with _telling_why_not(path):
        make_folder(posixpath.dirname(path))
        filesystem = _filesystem(path)
        if s3.is_s3(path):
            filesystem.cp_file(part, path)  # `mv` would take brackets for a glob
            filesystem.rm_file(part)
        else:
            filesystem.mv(part, path)


def concatenate(header: str, parts: Iterable[str], path: str) -> None:
    """Write a header line and then the bytes of the parts, in order, as one file that appears whole or not at all."""
    with writing(path) as stream:
        stream.write(header.encode("utf-8"))
        for part in parts:
            with _filesystem(part).open(part, "rb") as source:
                while chunk := source.read(CHUNK):
                    stream.write(chunk)


@contextlib.contextmanager
def edited(path: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A file that a library changes in place: its name on a disk, and what keeps the changes made so far.

    A file in S3 is worked on as a copy, which is put back whole.
    """
    if not s3.is_s3(path):
        make_folder(posixpath.dirname(path))
        yield path, lambda: None
        return
    filesystem = _filesystem(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = join(folder, name_of(path))
        if filesystem.exists(path):
            filesystem.get_file(path, copy)
        yield copy, lambda: filesystem.put_file(copy, path)


def remove(path: str) -> None:
    """Remove a file or folder with all that is in it, if it is there."""
    if s3.is_s3(path):
        s3.remove(path)
        return
    filesystem = _filesystem(path)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def describe(path: str) -> FileFacts:
    """Read a file once, for its size and SHA-256; a gzip file is unpacked on the way, to prove that it is whole.

    Raises InputError where the file cannot be read or a gzip file is damaged.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with _filesystem(path).open(path, "rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
        if path.endswith(".gz") and size:
            with _filesystem(path).open(path, "rb") as stream, gzip.open(stream) as unpacked:
                while unpacked.read(CHUNK):
                    pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    except s3.FAILURES as error:
        raise unreadable(path, error) from error
    return FileFacts(path, size, digest.hexdigest())


def first_lines(path: str, count: int) -> list[bytes]:
    """The first lines of a text file (unpacked where it is `.gz`), without line ends and byte order mark.

    Raises InputError where the file cannot be read or unpacked.
    """
    try:
        with _filesystem(path).open(path, "rb", compression="infer") as stream:
            head, lines = b"", list[bytes]()
            while len(lines) <= count and (chunk := stream.read(CHUNK)):
                head += chunk
                lines = head.splitlines()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    except s3.FAILURES as error:
        raise unreadable(path, error) from error
    if lines:
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    return lines[:count]


@s3.retried
def is_delta_table(path: str) -> bool:
    """Whether there is a Delta table, without reading what it has."""
    return bool(DeltaTable.is_deltatable(_delta_uri(path), _delta_options(path)))


def delta_table(path: str) -> ds.Dataset | None:
    """A Delta table as it is now, to be read without Spark; None where there is none."""
    if not is_delta_table(path):
        return None
    table = _open_delta_table(path)
    if not s3.is_s3(path):
        return table.to_pyarrow_dataset()
    filesystem = _filesystem(path)
    files = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
    return table.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(filesystem._strip_protocol(path), files))


@s3.retried
def _open_delta_table(path: str) -> DeltaTable:
    return DeltaTable(_delta_uri(path), storage_options=_delta_options(path))


def _delta_uri(path: str) -> str:
    """The path as `deltalake` takes it: in S3 a real URI, which ends at a `#` that is not escaped."""
    return f"{s3.SCHEME}://{quote('/'.join(s3.split(path)))}" if s3.is_s3(path) else path


def _delta_options(path: str) -> dict[str, str] | None:
    return s3.delta_options() if s3.is_s3(path) else None


def parquet(paths: str | list[str]) -> ds.Dataset:
    """Parquet files, to be read without Spark: one, or some of one data set."""
    first = paths if isinstance(paths, str) else paths[0]
    if not s3.is_s3(first):
        return ds.dataset(paths)
    filesystem = _filesystem(first)
    return ds.dataset(filesystem._strip_protocol(paths), filesystem=filesystem)


def unreadable(path: str, error: Exception) -> JobError:
    """The error of an input that is there but cannot be read."""
    if s3.is_s3(path):
        return StorageError(f"cannot read {path}: {reason(error)}")
    return InputError(f"cannot read {path}: {reason(error)}; check that it exists and that you may read it")


def reason(error: Exception) -> str:
    """What the system or S3 says is wrong, without its number and path."""
    return s3.explain(error) or getattr(error, "strerror", None) or str(error)


def _damaged(path: str, error: Exception) -> JobError:
    return InputError(f"{path} is truncated or damaged ({error}); deliver the file again")


def _uri(filesystem: Any, name: str) -> str:
    """The name that a file system gives to something, as a path of ours."""
    return name if isinstance(filesystem, LocalFileSystem) else f"{s3.SCHEME}://{name}"


def _filesystem(path: str) -> Any:
    # fsspec's file systems are untyped; this is the one place that hands them out.
    return fsspec.core.url_to_fs(path, **(s3.fsspec_options() if s3.is_s3(path) else {}))[0]
