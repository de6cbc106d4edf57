from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spark_app.platform import storage
from spark_app.platform.errors import InputError, StorageError

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run the block without the rights of root, which override permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_roots_are_made_absolute_without_slash_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalise("out/") == f"{tmp_path}/out"
    assert storage.normalise(f"file://{tmp_path}/out") == f"{tmp_path}/out"
    assert storage.normalise("/") == "/"
    assert storage.normalise(f"{tmp_path}/x/../out") == f"{tmp_path}/out"


def test_characters_that_hadoop_reads_as_a_glob_are_escaped() -> None:
    assert storage.spark_path("/a b/x[1]{2}*?%=\\y") == r"/a b/x\[1\]\{2\}\*\?%=\\y"


def test_writing_replaces_the_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    for content in (b"first", b"second"):
        with storage.writing(str(path)) as stream:
            stream.write(content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_writing_leaves_the_file_before_where_the_body_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"before")

    def fail_half_way() -> None:
        with storage.writing(str(path)) as stream:
            stream.write(b"half of what was to co")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"], "nothing half written stays"


def test_writing_where_the_disk_refuses_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(StorageError) as caught, storage.writing(str(path)):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_writing_into_a_folder_without_permission_is_a_storage_error(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    path = open_folder / "file.txt"
    with pytest.raises(StorageError) as caught, unprivileged(), storage.writing(str(path)):
        pytest.fail("the file cannot be opened")
    assert str(caught.value) == f"cannot write {path}: Permission denied"


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"title": "Am\u00e9lie", "ratings": [0.5, None], "n": 3}
    path = tmp_path / "value.json"
    storage.write_json(str(path), value)
    assert storage.read_json(str(path)) == value
    assert "Am\u00e9lie" in path.read_text(encoding="utf-8")


def test_text_is_read_with_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("t\u00eate\r\nb\n".encode())
    with storage.reading_text(str(path)) as stream:
        assert list(stream) == ["t\u00eate\r\n", "b\n"]


def test_publish_puts_a_file_in_the_place_of_another(tmp_path: Path) -> None:
    part, path = tmp_path / "part-0", tmp_path / "final" / "movies.parquet"
    for content in (b"old", b"new"):
        part.write_bytes(content)
        storage.publish(str(part), str(path))
        assert path.read_bytes() == content
        assert not part.exists()


def test_concatenate_writes_header_and_parts_in_order(tmp_path: Path) -> None:
    first, second, path = tmp_path / "b", tmp_path / "a", tmp_path / "out" / "all.csv"
    first.write_bytes(b"1,x\n")
    second.write_bytes(b"2,\xc3\xa9\n")
    storage.concatenate("id,t\u00eate\n", [str(first), str(second)], str(path))
    assert path.read_bytes() == "id,t\u00eate\n1,x\n2,\u00e9\n".encode()


def test_concatenate_with_a_part_missing_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_bytes(b"before")
    with pytest.raises(StorageError):
        storage.concatenate("id\n", [str(tmp_path / "gone")], str(path))
    assert path.read_bytes() == b"before"


def test_list_files_of_a_folder_skips_what_is_no_data(tmp_path: Path) -> None:
    for name in ("part-1.csv", "part-0.csv.gz", "_SUCCESS", ".part-0.csv.gz.crc", "_ingest.json"):
        (tmp_path / name).touch()
    (tmp_path / "_temporary").mkdir()
    assert storage.list_files(str(tmp_path)) == [f"{tmp_path}/part-0.csv.gz", f"{tmp_path}/part-1.csv"]


@pytest.mark.parametrize("name", ["", "part-*"])
def test_list_files_does_not_pass_over_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "part-1").mkdir()
    with pytest.raises(InputError) as caught:
        storage.list_files(str(tmp_path), name)
    assert str(caught.value) == (
        f"{tmp_path}/part-1 is a folder where a file should be: name its files by a glob such as part/*.csv"
    )


def test_list_files_takes_a_file_a_glob_or_nothing(tmp_path: Path) -> None:
    for name in ("a-1.csv", "a-2.csv", "b-1.csv", "_a-3.csv"):
        (tmp_path / name).touch()
    assert storage.list_files(str(tmp_path), "b-1.csv") == [f"{tmp_path}/b-1.csv"]
    assert storage.list_files(str(tmp_path), "a-*.csv") == [f"{tmp_path}/a-1.csv", f"{tmp_path}/a-2.csv"]
    assert storage.list_files(str(tmp_path), "?-1.csv") == [f"{tmp_path}/a-1.csv", f"{tmp_path}/b-1.csv"]
    assert storage.list_files(str(tmp_path), "c-*.csv") == []
    assert storage.list_files(f"{tmp_path}/gone") == []


@pytest.mark.parametrize("name", ["ratings [old]", "what?", "five *", "a b=1%20#{x}", "\u96fb\u5f71"])
def test_list_files_of_a_folder_whose_name_looks_like_a_glob(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "part-0.csv"
    path.parent.mkdir()
    path.touch()
    assert storage.list_files(str(path.parent)) == [str(path)]
    assert storage.list_files(str(path)) == [str(path)]


def test_list_files_matches_a_glob_under_a_root_that_looks_like_one(tmp_path: Path) -> None:
    root = tmp_path / "raw [old]"
    root.mkdir()
    (root / "ratings-1.csv").touch()
    assert storage.list_files(storage.join(str(root), "ratings-1.csv")) == [f"{root}/ratings-1.csv"]


def test_remove_takes_files_and_folders_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "deep").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file", "gone"):
        storage.remove(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_describe_gives_size_and_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert storage.describe(str(path)) == storage.FileFacts(str(path), 3, sha256)


def test_describe_of_gzip_is_of_the_packed_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"abc", mtime=0))
    facts = storage.describe(str(path))
    assert (facts.bytes, facts.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def packed(lines: int) -> bytes:
    """A gzip file whose content does not shrink to nothing."""
    return gzip.compress(b"".join(hashlib.sha256(str(line).encode()).digest() + b"\n" for line in range(lines)))


def content_of(path: str) -> bytes:
    with storage.reading(path) as content:
        return content.stream.read()


@pytest.mark.parametrize(
    "content",
    [packed(50)[:-20], packed(50)[:-4], packed(50)[:12], packed(50)[:300] + b"\0" * 900],
    ids=["cut in the data", "cut in the checksum", "cut in the head", "overwritten"],
)
def test_damaged_gzip_is_found_without_spark(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    for read in (storage.describe, content_of):
        with pytest.raises(InputError) as caught:
            read(str(path))
        assert str(caught.value).startswith(f"{path} is truncated or damaged (")
        assert str(caught.value).endswith("); deliver the file again")


def test_gzip_damaged_beyond_the_first_lines_is_found_by_describe(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed(100_000)[:-8])
    with storage.reading(str(path)) as content:
        assert len(content.stream.read(1_000)) == 1_000
    with pytest.raises(InputError, match="truncated or damaged"):
        storage.describe(str(path))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_describe_shows_the_content_unpacked(tmp_path: Path, suffix: str) -> None:
    path, pieces = tmp_path / f"a.csv{suffix}", list[bytes]()
    lines = b"userId,movieId\n" * 200_000
    path.write_bytes(gzip.compress(lines) if suffix else lines)
    facts = storage.describe(str(path), pieces.append)
    assert b"".join(pieces) == lines
    assert (facts.bytes, facts.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", ["a [1].csv", "a*.csv", "a?.csv", "50%20.csv"])
def test_files_are_read_by_the_path_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this\n")
    (tmp_path / "ab.csv").write_bytes(b"another\n")
    assert content_of(str(tmp_path / name)) == b"this\n"


def test_file_that_may_not_be_read_is_an_input_error(open_folder: Path) -> None:
    path = open_folder / "a.csv"
    path.write_bytes(b"a\n")
    path.chmod(0o000)
    for read in (storage.describe, content_of):
        with pytest.raises(InputError) as caught, unprivileged():
            read(str(path))
        assert str(caught.value) == (f"cannot read {path}: Permission denied; check that it exists and is readable")


def test_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        storage.describe(f"{tmp_path}/gone.csv")
    assert str(caught.value) == (
        f"cannot read {tmp_path}/gone.csv: No such file or directory; check that it exists and is readable"
    )


PARTS = (b"a", b"bc", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"x" * 20)


@pytest.mark.parametrize("seed", range(200))
def test_each_line_is_in_one_block_of_one_range(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    content = b"".join(rng.choice(PARTS) for _ in range(rng.randint(0, 60)))
    path, step, block_bytes = tmp_path / "lines", rng.choice([3, 7, 20, 50]), rng.choice([1, 2, 5, 30])
    path.write_bytes(content)
    found = []
    for start in range(0, len(content), step):
        for place, block in storage.line_blocks(str(path), start, min(start + step, len(content)), block_bytes):
            found += [(place + line.start(), line.group()) for line in re.finditer(rb"[^\r\n]+", block)]
    mark = 3 * content.startswith(b"\xef\xbb\xbf")
    expected = [(line.start(), line.group()) for line in re.finditer(rb"[^\r\n]+", content[mark:])]
    assert found == [(mark + place, line) for place, line in expected]


def test_the_lines_of_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfa\nb\r\nc"))
    assert list(storage.line_blocks(str(path), 0, 2**62, 4)) == [(3, b"a\nb\r\n"), (8, b"c")]
