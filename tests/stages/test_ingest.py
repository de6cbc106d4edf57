from __future__ import annotations

import functools
import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from pyspark.sql import SparkSession

from spark_app.platform.errors import InputError, LockedError, StorageError, UsageError
from spark_app.platform.lock import holding
from spark_app.platform.settings import Ingest, Raw, Settings
from spark_app.stages import ingest
from spark_app.zones.manifest import RunRecord

MOVIES = b"movieId,title,genres\r\n1,Heat (1995),Action\r\n"
RATINGS = b"userId,movieId,rating,timestamp\r\n1,1,4.0,1000000000\r\n"
FILES = {"movies.csv": MOVIES, "ratings.csv": RATINGS}


def run_ingest(root: Path, *sources: object, **options: Any) -> RunRecord:
    settings = Settings(raw=Raw(path=str(root)), ingest=Ingest(source=[str(source) for source in sources], **options))
    run = RunRecord("ingest", settings)
    ingest.run(cast(SparkSession, None), settings, run)
    return run


def folder_of(path: Path, files: dict[str, bytes] = FILES) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def zip_of(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def contents(root: Path) -> dict[str, bytes]:
    """The data files of a raw zone."""
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name[0] not in "_"}


def make_old(root: Path) -> None:
    """Set the times of the files back, so that a test can see whether they were written again."""
    for name in FILES:
        os.utime(root / name, (1_000_000_000, 1_000_000_000))


def is_old(path: Path) -> bool:
    return path.stat().st_mtime == 1_000_000_000


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server on the loopback: its address, and the folder it serves."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    served = tmp_path / "published"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", served
    server.shutdown()
    thread.join()
    server.server_close()


def test_folder_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    (source / "tags.csv").touch()
    run = run_ingest(root, source)
    assert contents(root) == FILES
    assert run.outputs == [f"{root}/movies.csv", f"{root}/ratings.csv"]


def test_folder_without_one_of_the_files_is_an_input_error(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", {"movies.csv": MOVIES})
    with pytest.raises(InputError) as caught:
        run_ingest(tmp_path / "raw", source)
    assert str(caught.value) == (f"{source}/ratings.csv is missing: a source folder holds movies.csv and ratings.csv")


def test_zip_is_searched_in_its_folders_and_nothing_else_is_taken_out(tmp_path: Path) -> None:
    entries = {"set/deep/movies.csv": MOVIES, "set/deep/ratings.csv": RATINGS, "set/README.txt": b"hello"}
    root = tmp_path / "raw"
    run_ingest(root, zip_of(tmp_path / "set.zip", entries))
    assert contents(root) == FILES


@pytest.mark.parametrize("entry", ["../movies.csv", "set/../../evil.csv", "/evil.csv", "..\\evil.csv"])
def test_zip_that_points_out_of_itself_is_refused(tmp_path: Path, entry: str) -> None:
    archive = zip_of(tmp_path / "set.zip", {"ratings.csv": RATINGS, "set/movies.csv": MOVIES, entry: b"evil"})
    with pytest.raises(InputError) as caught:
        run_ingest(tmp_path / "raw", archive)
    assert str(caught.value) == f"{archive} has an entry that points out of it ({entry}): refused"
    assert contents(tmp_path / "raw") == {}
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize(
    ("entries", "count", "name"),
    [
        ({"a/movies.csv": MOVIES}, 0, "ratings.csv"),
        ({"a/movies.csv": MOVIES, "b/movies.csv": MOVIES, "a/ratings.csv": RATINGS}, 2, "movies.csv"),
    ],
)
def test_zip_holds_one_file_of_each_name(tmp_path: Path, entries: dict[str, bytes], count: int, name: str) -> None:
    archive = zip_of(tmp_path / "set.zip", entries)
    with pytest.raises(InputError) as caught:
        run_ingest(tmp_path / "raw", archive)
    assert str(caught.value) == f"{archive} holds {count} files named {name}: expected one"


def test_zip_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {"movies.csv": MOVIES, "ratings.csv": b"0" * 5_000_000})
    root = tmp_path / "raw"
    with pytest.raises(InputError) as caught:
        run_ingest(root, archive, max_unzipped_bytes=1_000_000)
    assert str(caught.value).endswith("unpacks to more than ingest.max_unzipped_bytes=1,000,000: refused")
    assert "ingest.max_unzipped_bytes=1,000,000" in str(caught.value)
    assert contents(root) == {}, "a refused zip leaves nothing"


def many_ratings() -> bytes:
    lines = (b"%s,1,4.0,1000000000\r\n" % hashlib.sha256(b"%d" % line).hexdigest().encode() for line in range(3_000))
    return b"userId,movieId,rating,timestamp\r\n" + b"".join(lines)


def overwrite(archive: Path, entry: str, offset: int, damage: bytes) -> None:
    """Overwrite bytes of an entry of a zip, `offset` bytes after the beginning of its data."""
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo(entry)
    content = bytearray(archive.read_bytes())
    data = info.header_offset + 30 + len(entry)  # the local header is 30 bytes and the name
    content[data + offset : data + offset + len(damage)] = damage
    archive.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("compression", "offset", "damage"),
    [
        (zipfile.ZIP_STORED, 1_000, b"\0" * 64),  # only the checksum shows it
        (zipfile.ZIP_DEFLATED, 1_000, b"\xff" * 64),
        (zipfile.ZIP_DEFLATED, 0, b"\x07"),  # a type of block that does not exist
    ],
    ids=["stored", "deflated", "no deflate at all"],
)
def test_damaged_zip_is_an_input_error_and_leaves_nothing(
    tmp_path: Path, compression: int, offset: int, damage: bytes
) -> None:
    archive = zip_of(tmp_path / "set.zip", {"movies.csv": MOVIES, "ratings.csv": many_ratings()}, compression)
    overwrite(archive, "ratings.csv", offset, damage)
    root = tmp_path / "raw"
    with pytest.raises(InputError) as caught:
        run_ingest(root, archive)
    assert str(caught.value).startswith(f"{archive} is not a whole zip file (")
    assert str(caught.value).endswith("): fetch it again")
    assert contents(root) == {}


def test_good_source_can_follow_a_damaged_one(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "set.zip", {"movies.csv": MOVIES, "ratings.csv": many_ratings()})
    overwrite(archive, "ratings.csv", 1_000, b"\xff" * 64)
    root = tmp_path / "raw"
    with pytest.raises(InputError):
        run_ingest(root, archive)
    run_ingest(root, folder_of(tmp_path / "source"))
    assert contents(root) == FILES


@pytest.mark.parametrize("how", ["cut", "no zip"])
def test_file_that_is_no_zip_is_an_input_error(tmp_path: Path, how: str) -> None:
    archive = zip_of(tmp_path / "set.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:100] if how == "cut" else b"<html>moved</html>")
    with pytest.raises(InputError) as caught:
        run_ingest(tmp_path / "raw", archive)
    assert str(caught.value) == (
        f"ingest.source {archive} is neither one of ml-latest-small, ml-25m, ml-32m, synthetic "
        "nor an existing folder or zip"
    )


def test_synthetic_files_are_one_set_a_seed(tmp_path: Path) -> None:
    size = {"users": 50, "movies": 40, "ratings": 500}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_ingest(tmp_path / name, "synthetic", seed=seed, **size)
    first, same, other = (contents(tmp_path / name) for name in "abc")
    assert first == same
    assert first["ratings.csv"] != other["ratings.csv"]
    assert first["movies.csv"].startswith(b"movieId,title,genres\n1,")
    assert first["movies.csv"].count(b"\n") == 41
    assert first["ratings.csv"].startswith(b"userId,movieId,rating,timestamp\n1,")
    assert first["ratings.csv"].count(b"\n") == 501


def test_synthetic_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run_ingest(tmp_path / "raw", "synthetic", users=10, movies=10, ratings=51)
    assert str(caught.value) == "ingest.ratings=51 must be from users (10) to half of users x movies (50)"


def test_intact_files_are_not_fetched_again(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    run_ingest(root, source)
    make_old(root)
    run = run_ingest(root, source)
    assert all(is_old(root / name) for name in FILES)
    assert run.outputs == []


def test_missing_file_is_fetched_again_and_the_other_is_not_touched(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    run_ingest(root, source)
    make_old(root)
    (root / "ratings.csv").unlink()
    run = run_ingest(root, source)
    assert contents(root) == FILES
    assert run.outputs == [f"{root}/ratings.csv"]
    assert is_old(root / "movies.csv")


def test_file_that_was_changed_is_never_overwritten(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    run_ingest(root, source)
    mine = RATINGS + b"2,1,5.0,1000000001\r\n"
    (root / "ratings.csv").write_bytes(mine)
    with pytest.raises(InputError) as caught:
        run_ingest(root, source)
    assert str(caught.value) == (
        f"{root}/ratings.csv was changed since ingest put it there: remove it to have it fetched again, "
        f"or remove {root}/_ingest.json to use it as it is"
    )
    assert contents(root) == {**FILES, "ratings.csv": mine}
    (root / "_ingest.json").unlink()
    run_ingest(root, source)
    assert contents(root) == {**FILES, "ratings.csv": mine}


def test_source_that_changed_since_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    run_ingest(root, source)
    (root / "ratings.csv").unlink()
    (source / "movies.csv").write_bytes(MOVIES * 2)
    with pytest.raises(InputError) as caught:
        run_ingest(root, source)
    assert str(caught.value) == f"{source} has changed since {root}/movies.csv was fetched from it: empty {root}"
    assert contents(root) == {"movies.csv": MOVIES}


def test_another_synthetic_set_is_another_source(tmp_path: Path) -> None:
    root, size = tmp_path / "raw", {"users": 50, "movies": 40}
    run_ingest(root, "synthetic", ratings=500, **size)
    assert run_ingest(root, "synthetic", ratings=500, **size).outputs == []
    with pytest.raises(UsageError) as caught:
        run_ingest(root, "synthetic", ratings=600, **size)
    assert str(caught.value) == (
        f"{root} holds synthetic (users=50, movies=40, ratings=500, seed=42), "
        "not synthetic (users=50, movies=40, ratings=600, seed=42): choose another --raw-path"
    )


def test_files_of_other_names_are_not_ingested(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    settings = Settings(
        raw=Raw(path=str(root), ratings="my.csv"), ingest=Ingest(source=[str(folder_of(tmp_path / "s"))])
    )
    with pytest.raises(UsageError, match="ingest writes movies"):
        ingest.run(cast(SparkSession, None), settings, RunRecord("ingest", settings))
    assert not root.exists()


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    with holding("raw", str(root), "another", 60), pytest.raises(LockedError, match="is in use by run another"):
        run_ingest(root, folder_of(tmp_path / "source"))
    assert contents(root) == {}


def test_files_of_somebody_else_are_never_touched(tmp_path: Path) -> None:
    own = {"movies.csv": b"my movies", "ratings.csv": b"my ratings"}
    root = folder_of(tmp_path / "raw", own)
    make_old(root)
    run_ingest(root, folder_of(tmp_path / "source"))
    assert contents(root) == own
    assert all(is_old(root / name) for name in FILES)


@pytest.mark.parametrize(
    "own",
    [["movies.csv", "ratings.csv.gz"], ["movies.csv", "ratings/part-0.csv"], ["movies.csv.gz", "ratings.csv.gz"]],
    ids=" and ".join,
)
def test_files_of_somebody_else_in_another_form_are_left_alone_too(tmp_path: Path, own: list[str]) -> None:
    root = tmp_path / "raw"
    for name in own:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"mine")
    run_ingest(root, folder_of(tmp_path / "source"))
    assert contents(root) == {Path(name).name: b"mine" for name in own}


def test_half_of_the_files_of_somebody_else_is_a_usage_error(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", {"movies.csv": b"my movies"})
    with pytest.raises(UsageError) as caught:
        run_ingest(root, folder_of(tmp_path / "source"))
    assert str(caught.value) == (
        f"{root} holds movies.csv but not the other file: complete it, or choose another --raw-path"
    )
    assert contents(root) == {"movies.csv": b"my movies"}


def test_another_source_than_the_one_recorded_is_a_usage_error(tmp_path: Path) -> None:
    source, root = folder_of(tmp_path / "source"), tmp_path / "raw"
    run_ingest(root, source)
    with pytest.raises(UsageError) as caught:
        run_ingest(root, "synthetic", "ml-25m")
    assert str(caught.value) == (
        f"{root} holds {source}, not synthetic (users=1000, movies=2000, ratings=100000, seed=42) or ml-25m: "
        "choose another --raw-path"
    )
    assert contents(root) == FILES


def test_the_next_source_is_tried_where_one_cannot_be_had(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    gone, broken = (
        tmp_path / "gone",
        zip_of(tmp_path / "set.zip", {"movies.csv": MOVIES, "ratings.csv": many_ratings()}),
    )
    overwrite(broken, "ratings.csv", 1_000, b"\xff" * 64)
    run_ingest(root, gone, broken, folder_of(tmp_path / "source"), "synthetic")
    assert contents(root) == FILES


def test_the_error_of_the_last_source_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-set"):
        run_ingest(tmp_path / "raw", tmp_path / "gone", "no-such-set")


def test_without_a_source_the_raw_zone_is_used_as_it_is(tmp_path: Path) -> None:
    run = run_ingest(tmp_path / "raw")
    assert run.outputs == []
    assert not (tmp_path / "raw").exists()


def test_named_set_is_downloaded_checked_and_unzipped(tmp_path: Path, publisher: tuple[str, Path]) -> None:
    url, served = publisher
    entries = {"ml-latest-small/movies.csv": MOVIES, "ml-latest-small/ratings.csv": RATINGS}
    archive = zip_of(served / "ml-latest-small.zip", entries)
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    (served / "ml-latest-small.zip.md5").write_text(f"{md5}  ml-latest-small.zip\n")
    root = tmp_path / "raw"
    run_ingest(root, "ml-latest-small", base_url=f"{url}/")
    assert contents(root) == FILES
    assert not (root / "_download").exists()


def test_named_set_that_is_not_published_gives_way_to_the_next_source(
    tmp_path: Path, publisher: tuple[str, Path]
) -> None:
    root = tmp_path / "raw"
    with pytest.raises(StorageError, match="the server answered 404"):
        run_ingest(root, "ml-25m", base_url=publisher[0])
    run_ingest(root, "ml-25m", folder_of(tmp_path / "source"), base_url=publisher[0])
    assert contents(root) == FILES
