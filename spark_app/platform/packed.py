"""Packed files: which format a file has, by its first bytes, and its content as a stream."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from spark_app.platform.errors import InputError

HEAD_BYTES = 4_096
"""How many bytes tell the format."""

SUFFIXES = (".gz", ".bz2", ".zip", ".zst", ".xz", ".lz4")
"""How the names of packed files usually end. Only a name is found by them: the format is told by the bytes."""

FAILURES = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What reading a damaged file raises, beside an OSError without a number."""

_HADOOP_FORMATS = {".gz": "gzip", ".bz2": "bzip2", **dict.fromkeys((".deflate", ".lz4", ".snappy", ".zst"), "other")}
"""The names by which Hadoop takes a file for packed, and the formats that it reads as we do, by itself."""

_FORMATS = {
    "gzip": rb"\x1f\x8b\x08",
    "bzip2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "xz": rb"\xfd7zXZ\x00",
    "lz4": rb"\x04\x22\x4d\x18",
    "zip": rb"PK(?:\x03\x04|\x05\x06)",
}
_OTHERS = {
    "a 7z archive: unpack it": rb"7z\xbc\xaf\x27\x1c",
    "a RAR archive: unpack it": rb"Rar!\x1a\x07",
    "a tar archive: unpack it": rb"(?s:.{257})ustar",
    "packed by compress: unpack it": rb"\x1f\x9d",
    "packed by Snappy: unpack it": rb"\xff\x06\x00\x00sNaPpY",
    "a Parquet file: write it as CSV": rb"PAR1",
    "an Excel workbook: save it as CSV UTF-8": rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "an SQLite database: export its tables as CSV": rb"SQLite format 3\x00",
}


def format_of(head: bytes) -> str:
    """The format of a packed file that begins with `head`, such as `gzip`; empty if it is not packed."""
    return next((name for name, magic in _FORMATS.items() if re.match(magic, head)), "")


def can_hadoop_read(path: str, packed_as: str) -> bool:
    """Whether Hadoop, which goes by the name, reads a file as we do."""
    return _HADOOP_FORMATS.get(posixpath.splitext(path)[1], "") == packed_as


@dataclass(frozen=True)
class Content:
    """What is in a file, unpacked: a stream, its first bytes, and the format the file is packed in (empty: none)."""

    stream: IO[bytes]
    head: bytes
    packed_as: str = ""


@contextlib.contextmanager
def unpacked(stream: IO[bytes], path: str) -> Iterator[Content]:
    """The content of an open file. `path` is its name, for errors.

    Raises InputError where it has a format that cannot be read, is an archive of several files, or is damaged.
    """
    head = _head(stream)
    _check_readable(head, path)
    packed_as = format_of(head)
    if not packed_as:
        yield Content(stream, head)
        return
    try:
        with _opened(stream, packed_as, path) as content:
            inner = content.peek(HEAD_BYTES)
            _check_readable(inner, path)
            yield Content(content, inner, packed_as)
    except FAILURES as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # The codecs raise it without a number; where storage fails it has one.
        if error.errno is not None:
            raise
        raise _damaged(path, error) from error


def _head(stream: IO[bytes]) -> bytes:
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    return head


def _opened(stream: IO[bytes], packed_as: str, path: str) -> Any:
    """A buffered reader of what is packed."""
    if packed_as == "gzip":
        return io.BufferedReader(gzip.GzipFile(fileobj=stream))
    if packed_as == "bzip2":
        return io.BufferedReader(bz2.BZ2File(stream))
    if packed_as == "xz":
        return io.BufferedReader(lzma.LZMAFile(stream))
    if packed_as == "zip":
        return io.BufferedReader(_only_member(zipfile.ZipFile(stream), path))
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), packed_as))


def _only_member(archive: zipfile.ZipFile, path: str) -> IO[bytes]:
    """The one file of a zip. Folders and what macOS adds (`__MACOSX/`, `.DS_Store`) do not count."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and "/." not in f"/{member.filename}"
    ]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise InputError(f"{path} is an Excel workbook: save it as CSV UTF-8")
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:3])
        raise InputError(
            f"{path} is a zip of {len(members)} files ({names}): unpack it, and deliver one file for a table"
        )
    if members[0].flag_bits & 1:
        raise InputError(f"{path} is a zip with a password: unpack it")
    try:
        return archive.open(members[0])
    except NotImplementedError as error:
        raise InputError(f"{path} cannot be unpacked ({error}): unpack it, or pack it by another program") from error


def _check_readable(head: bytes, path: str) -> None:
    for what, magic in _OTHERS.items():
        if re.match(magic, head):
            kind, _, advice = what.partition(": ")
            raise InputError(f"{path} is {kind}, which cannot be read: {advice}")


def _damaged(path: str, error: Exception) -> InputError:
    return InputError(f"{path} is truncated or damaged ({error}); deliver the file again")
