"""Packed files: what can be read, and what is told apart."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from spark_app.platform import packed, storage
from spark_app.platform.errors import InputError

LINES = b"".join(b"%d,%d,4.0,%d\n" % (user, user * 7919 % 1000, 10**9 + user * user) for user in range(20_000))


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def by_arrow(codec: str, content: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, codec) as packer:
        packer.write(content)
    return bytes(stream.getvalue())


def tarred(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("ratings.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda content: zipped({"data/": b"", "data/ratings.csv": content, "__MACOSX/data/._ratings.csv": b"x"}),
    "zstd": lambda content: by_arrow("zstd", content),
    "lz4": lambda content: by_arrow("lz4", content),
}


def read(path: Path) -> bytes:
    with storage.reading(str(path)) as content:
        return content.stream.read()


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("packed_as", ["", *PACKERS])
def test_what_can_be_unpacked_is_read_whatever_its_name(tmp_path: Path, packed_as: str) -> None:
    for content in (LINES, b"", b"x"):
        file = tmp_path / "ratings.csv"
        file.write_bytes(PACKERS[packed_as](content) if packed_as else content)
        assert read(file) == content
        with storage.reading(str(file)) as found:
            assert (found.packed_as, found.head[:10]) == (packed_as, content[:10])


@pytest.mark.parametrize("packed_as", ["gzip", "bzip2", "xz", "zstd", "lz4"])
def test_parts_that_were_packed_apart_are_read_as_one(tmp_path: Path, packed_as: str) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes(PACKERS[packed_as](LINES) + PACKERS[packed_as](b"the end\n"))
    assert read(file) == LINES + b"the end\n"


@pytest.mark.parametrize("packed_as", PACKERS)
def test_a_packed_file_that_is_not_whole_is_damaged(tmp_path: Path, packed_as: str) -> None:
    whole = PACKERS[packed_as](LINES)
    middle = len(whole) // 2
    file = tmp_path / "ratings.csv"
    overwritten = [whole[:middle] + b"\0" * 200 + whole[middle + 200 :]]
    if packed_as in ("zstd", "lz4"):
        overwritten = []  # Arrow packs these without a checksum
    for damaged in (whole[:middle], whole[:-3], *overwritten):
        file.write_bytes(damaged)
        message = error_of(file)
        assert message.startswith(" is truncated or damaged (")
        assert message.endswith("); deliver the file again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 40, " is a 7z archive, which cannot be read: unpack it"),
        (b"Rar!\x1a\x07\x01\x00" + b"\0" * 40, " is a RAR archive, which cannot be read: unpack it"),
        (tarred(LINES), " is a tar archive, which cannot be read: unpack it"),
        (gzip.compress(tarred(LINES)), " is a tar archive, which cannot be read: unpack it"),
        (b"PAR1" + b"\0" * 40, " is a Parquet file, which cannot be read: write it as CSV"),
        (
            zipped({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
            " is an Excel workbook: save it as CSV UTF-8",
        ),
        (
            zipped({"movies.csv": b"a", "ratings.csv": b"b"}),
            " is a zip of 2 files (movies.csv, ratings.csv): unpack it, and deliver one file for a table",
        ),
        (zipped({}), " is a zip of 0 files (): unpack it, and deliver one file for a table"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes(content)
    assert error_of(file) == message


@pytest.mark.parametrize(
    ("name", "packed_as", "can"),
    [
        ("ratings.csv", "", True),
        ("u.data", "", True),
        ("ratings.csv.gz", "gzip", True),
        ("ratings.csv.bz2", "bzip2", True),
        ("ratings.csv.gz", "", False),
        ("ratings.csv.gz", "bzip2", False),
        ("ratings.csv", "gzip", False),
        ("ratings.csv.zst", "zstd", False),
        ("ratings.csv.zip", "zip", False),
        ("ratings.csv.snappy", "", False),
    ],
)
def test_hadoop_goes_by_names(name: str, packed_as: str, can: bool) -> None:
    assert packed.can_hadoop_read(f"/raw/{name}", packed_as) == can
