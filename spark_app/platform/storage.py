"""Small files and listings through fsspec: the same code for a disk and for S3."""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import json
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import fsspec
import pyarrow.dataset as ds
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from spark_app.platform import packed, s3
from spark_app.platform.errors import InputError, JobError, StorageError

CHUNK = 1 << 20


@dataclass(frozen=True)
class FileFacts:
    """What identifies one raw file: its URI, size in bytes, and SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


def normalise(root: str) -> str:
    """A root as both Spark and fsspec take it: an absolute path, or a URI with `s3://`, without a slash at the end.

    Roots become absolute only here: a relative path would mean another folder in another working directory.
    """
    if s3.is_s3(root):
        return join(f"{s3.SCHEME}://", *(part for part in s3.split(root) if part)).rstrip("/")
    _, path = fsspec.core.url_to_fs(root)
    return posixpath.normpath(str(path))  # Hadoop too resolves `..` by name, without following links


def spark_path(path: str) -> str:
    """The path with all characters escaped that Hadoop would read as a glob."""
    special = set("{}[]*?\\")
    return "".join("\\" + letter if letter in special else letter for letter in path)


def join(root: str, *parts: str) -> str:
    """A path under a root, separated by `/` on every system."""
    return posixpath.join(root, *parts)


def name_of(path: str) -> str:
    """The last part of a path."""
    return posixpath.basename(path)


def exists(path: str) -> bool:
    """Whether there is anything at a path."""
    return bool(_filesystem(path).exists(path))


def is_file(path: str) -> bool:
    """Whether there is a file at a path, not a folder."""
    return bool(_filesystem(path).isfile(path))


def is_glob(name: str) -> bool:
    """Whether a name is a glob, which stands for all names that match it."""
    return glob.has_magic(name)


def list_files(root: str, name: str = "") -> list[str]:
    """The data files that a file, a folder or a glob under a root stands for, sorted; none where nothing is there.

    In folders and globs, names that begin with `_` or `.` are not data, by the convention of Hadoop. Raises InputError
    where a folder is among the files: the files in it would be missed.
    """
    filesystem, path = _filesystem(root), join(root, name).rstrip("/")
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        check_readable(path)
        entries = filesystem.ls(path, detail=True)
    else:
        entries = filesystem.glob(join(glob.escape(root), name), detail=True).values()
    # In S3 a folder may have an object of its own, with a slash at the end of its name.
    data = {_uri(filesystem, entry["name"]): entry["type"] for entry in entries if not entry["name"].endswith("/")}
    data = {uri: data[uri] for uri in sorted(data) if name_of(uri)[0] not in "_."}
    for uri, entry_type in data.items():
        if entry_type != "file" and filesystem.isdir(uri):
            raise InputError(f"{uri} is a folder where a file should be: name its files by a glob such as part/*.csv")
    return list(data)


def find_files(root: str) -> list[str]:
    """All data files in a folder and in the folders in it, sorted; none where nothing is there.

    Names that begin with `_` or `.` are not data. Raises what `check_readable` does.
    """
    filesystem = _filesystem(root)
    if not filesystem.isdir(root):
        return []
    check_readable(root)
    found = (_uri(filesystem, name) for name in filesystem.find(root, maxdepth=2))
    return sorted(uri for uri in found if not uri.endswith("/") and name_of(uri)[0] not in "_.")


def list_folders(path: str) -> list[str]:
    """The folders in a folder, sorted; none where nothing is there."""
    filesystem = _filesystem(path)
    if not filesystem.isdir(path):
        return []
    entries = filesystem.ls(path, detail=True)
    return sorted(_uri(filesystem, entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory")


def check_readable(folder: str) -> None:
    """Raise InputError (StorageError in S3) where a folder exists but cannot be listed."""
    try:
        _filesystem(folder).ls(folder)
    except FileNotFoundError:
        return
    except s3.failures() as error:
        raise unreadable(folder, error) from error


def read_text(path: str) -> str:
    """The whole of a small UTF-8 text, in one request: between two requests another run could replace it."""
    return bytes(_filesystem(path).cat_file(path)).decode("utf-8")


@contextlib.contextmanager
def reading_text(path: str) -> Iterator[IO[str]]:
    """Open a UTF-8 text to read it line by line, with its line ends unchanged."""
    with _filesystem(path).open(path, "r", encoding="utf-8", newline="") as stream:
        yield stream


def read_csv(path: str) -> list[list[str]]:
    """The rows of a small CSV file: cells without spaces around them, and no blank lines.

    Raises InputError where the file cannot be read, StorageError where S3 cannot be read.
    """
    try:
        with reading_text(path) as lines:
            rows = [[cell.strip("\ufeff \t") for cell in row] for row in csv.reader(lines)]
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: it is not UTF-8") from error
    except s3.failures(csv.Error) as error:
        raise unreadable(path, error) from error
    return [row for row in rows if any(row)]


def read_json(path: str) -> Any:
    """The value in a JSON file."""
    return json.loads(read_text(path))


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 text that appears whole or not at all."""
    if s3.is_s3(path):
        with _explaining_failures(path):
            _filesystem(path).pipe_file(path, text.encode("utf-8"))  # in one request
        return
    with writing(path) as stream:
        stream.write(text.encode("utf-8"))


@contextlib.contextmanager
def writing(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` at the end, or leaves it untouched where writing fails."""
    with _explaining_failures(path), _uploading(path) if s3.is_s3(path) else _writing_beside(path) as stream:
        yield stream


@contextlib.contextmanager
def _explaining_failures(path: str) -> Iterator[None]:
    try:
        yield
    except s3.failures() as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error


@contextlib.contextmanager
def _uploading(path: str) -> Iterator[IO[bytes]]:
    """Write an object in S3 that appears only when its upload is complete."""
    stream = _filesystem(path).open(path, "wb", autocommit=False)
    try:
        yield stream
        stream.close()
        stream.commit()
    except BaseException:
        with s3.ignoring_failures():
            stream.discard()
        stream.closed = True  # else the garbage collector would complete the upload
        raise


@contextlib.contextmanager
def _writing_beside(path: str) -> Iterator[IO[bytes]]:
    """Write a file under another name, and rename it at the end."""
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
    """Create a folder and its parents where they are missing; S3 needs no folders."""
    if not s3.is_s3(path):
        _filesystem(path).makedirs(path, exist_ok=True)


def publish(part: str, path: str) -> None:
    """Move the finished file `part` to `path` in one step: readers see either the old file or the new one."""
    with _explaining_failures(path):
        make_folder(posixpath.dirname(path))
        filesystem = _filesystem(path)
        if s3.is_s3(path):
            filesystem.cp_file(part, path)  # `mv` would read brackets as a glob
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
    """A file for a library that changes files in place: its path on a disk, and a function that saves the changes.

    For a file in S3 the path is that of a copy, and saving uploads the whole copy.
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
    """Remove a file, or a folder with everything in it, if it exists."""
    if s3.is_s3(path):
        s3.remove(path)
        return
    filesystem = _filesystem(path)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def describe(path: str, see: Callable[[bytes], None] | None = None) -> FileFacts:
    """The size and SHA-256 of a file of text. A packed one is also unpacked, to prove that it is whole.

    `see` is called with the content, piece by piece, unpacked. Raises InputError where the file is damaged or cannot be
    read, StorageError where S3 cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with reading(path) as content:
        while chunk := content.stream.read(CHUNK):
            if not content.packed_as:
                digest.update(chunk)
                size += len(chunk)
            if see:
                see(chunk)
    return fingerprint(path) if content.packed_as else FileFacts(path, size, digest.hexdigest())


def fingerprint(path: str) -> FileFacts:
    """The size and SHA-256 of a file of any format. Raises errors as `describe` does."""
    digest, size = hashlib.sha256(), 0
    with _explaining_reads(path), _filesystem(path).open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileFacts(path, size, digest.hexdigest())


@contextlib.contextmanager
def reading(path: str) -> Iterator[packed.Content]:
    """Open a file to read its content, unpacked.

    Raises InputError where the file is damaged, has a format that cannot be read, or cannot be opened; StorageError
    where S3 cannot be read.
    """
    with (
        _explaining_reads(path),
        _filesystem(path).open(path, "rb") as stream,
        packed.unpacked(stream, path) as content,
    ):
        yield content


@contextlib.contextmanager
def _explaining_reads(path: str) -> Iterator[None]:
    try:
        yield
    except s3.failures() as error:
        raise unreadable(path, error) from error


def line_blocks(path: str, start: int, end: int, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file that begin from byte `start` to before byte `end`, in blocks of whole lines.

    Each block, of about `block_bytes`, comes with the position of its first byte. A `.gz` file is unpacked, and
    positions are those in the unpacked file. A byte order mark is left out.
    """
    with _filesystem(path).open(path, "rb", compression="gzip" if path.endswith(".gz") else None) as stream:
        position = 0
        if start:
            stream.seek(start - 1)
            position = start - 1 + len(stream.readline())
        rest = b""
        while position < end and (chunk := stream.read(block_bytes)):
            block = rest + chunk
            last = max(end - 1 - position, 0)  # the first line feed from here on ends the last line
            cut = block.find(b"\n", last) + 1 or block.rfind(b"\n") + 1
            # A carriage return ends a line too, unless a line feed follows. Only line feeds divide ranges.
            cut = cut or block.rfind(b"\r", 0, min(len(block) - 1, last)) + 1
            if cut:
                yield _without_mark(position, block[:cut])
            position, rest = position + cut, block[cut:]
        if position < end and rest:
            yield _without_mark(position, rest)


def _without_mark(position: int, block: bytes) -> tuple[int, bytes]:
    mark = b"\xef\xbb\xbf"
    return (len(mark), block[len(mark) :]) if position == 0 and block.startswith(mark) else (position, block)


def arrow_folder(path: str) -> fs.FileSystem:
    """A folder in S3 as a file system of pyarrow, in which paths are relative to the folder."""
    filesystem = _filesystem(path)
    return fs.SubTreeFileSystem(filesystem._strip_protocol(path), fs.PyFileSystem(fs.FSSpecHandler(filesystem)))


def parquet(paths: str | list[str]) -> ds.Dataset:
    """Parquet files to read without Spark: one file, or several with the same columns."""
    first = paths if isinstance(paths, str) else paths[0]
    if not s3.is_s3(first):
        return ds.dataset(paths)
    filesystem = _filesystem(first)
    return ds.dataset(filesystem._strip_protocol(paths), filesystem=filesystem)


def unreadable(path: str, error: Exception) -> JobError:
    """The error for an input that cannot be read: StorageError in S3, InputError on a disk."""
    if s3.is_s3(path):
        return StorageError(f"cannot read {path}: {reason(error)}")
    return InputError(f"cannot read {path}: {reason(error)}; check that it exists and is readable")


def reason(error: Exception) -> str:
    """What is wrong, in the words of S3 or of the system, without the number of the error and the path."""
    return s3.explain(error) or getattr(error, "strerror", None) or str(error)


def _uri(filesystem: Any, name: str) -> str:
    """The path, as this package writes it, of a name that a file system gives."""
    return name if isinstance(filesystem, LocalFileSystem) else f"{s3.SCHEME}://{name}"


def _filesystem(path: str) -> Any:
    # fsspec's file systems are untyped; this is the one place that hands them out.
    return fsspec.core.url_to_fs(path, **(s3.fsspec_options() if s3.is_s3(path) else {}))[0]
