"""Lists of ids in every form that people keep them in, on a disk and in S3."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from spark_app.platform import s3, storage
from spark_app.platform.errors import InputError, StorageError
from spark_app.platform.settings import Input
from spark_app.zones.id_lists import IdColumn, read_ids


def ids_in(path: Path | str, column: IdColumn = "movieId", names: Input | None = None) -> list[str]:
    return read_ids([str(path)], column, names or Input())


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("3\n1\n3\n", ["3", "1"]),
        ("movieId\n3\n1\n", ["3", "1"]),
        ('\ufeffmovieId,title\r\n3,"A, B"\r\n1,C\r\n', ["3", "1"]),
        ("title,id\nA,x 1\nB, y2 \nC,\n", ["x 1", "y2"]),
        ("tt0042\n\n  tt0043\n", ["tt0042", "tt0043"]),
        ("", []),
        ("movieId\n", []),
    ],
)
def test_text_and_csv(tmp_path: Path, text: str, ids: list[str]) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode())
    assert ids_in(tmp_path / "list.csv") == ids


def test_the_column_of_the_input_comes_first(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("id,isbn\n1,0042\n2,0043\n")
    assert ids_in(tmp_path / "list.csv", names=Input(item="isbn")) == ["0042", "0043"]
    assert ids_in(tmp_path / "list.csv", "userId", Input(item="isbn")) == ["1", "2"]


def test_parquet_and_delta_of_any_type(tmp_path: Path) -> None:
    tables = {
        "ints": pa.table({"movieId": [3, 1], "x": [0.5, 0.5]}),
        "floats": pa.table({"movieId": [3.0, None, 1.0]}),
        "texts": pa.table({"anything": ["3", "1"]}),
        "categories": pa.table({"id": pa.array(["3", "1"]).dictionary_encode(), "y": [1, 2]}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}_parts").mkdir()
        pq.write_table(table, tmp_path / f"{name}_parts" / "part-0.parquet")
        assert ids_in(tmp_path / f"{name}.parquet") == ids_in(tmp_path / f"{name}_parts") == ["3", "1"]
    write_deltalake(tmp_path / "delta", tables["ints"])
    assert ids_in(tmp_path / "delta") == ["3", "1"]


def test_several_lists_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("3\n1\n")
    (tmp_path / "b.csv").write_text("movieId\n2\n1\n")
    assert read_ids([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], "movieId", Input()) == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("two.csv", b"title,shelf\nA,1\n", "two.csv has the columns title, shelf: call the column of the ids movieId"),
        ("bad.csv", b"1\n\xff\xfe\n", "bad.csv: it is not UTF-8"),
        ("bad.parquet", b"no parquet", "cannot read "),
    ],
)
def test_a_list_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as failed:
        ids_in(tmp_path / name)
    assert told in str(failed.value)
    assert "\n" not in str(failed.value)


def test_lists_lie_in_s3_too(in_s3: str, tmp_path: Path) -> None:
    storage.write_text(f"{in_s3}/list.csv", "3\n1\n")
    assert ids_in(f"{in_s3}/list.csv") == ["3", "1"]
    assert ids_in(f"{in_s3}/list.csv".replace("s3://", "s3a://")) == ["3", "1"]
    write_deltalake(f"{in_s3}/delta", pa.table({"id": ["a", "b"], "n": [1, 2]}), storage_options=s3.delta_options())
    assert ids_in(f"{in_s3}/delta") == ["a", "b"]
    with pytest.raises(InputError, match="is missing"):
        ids_in(f"{in_s3}/none.csv")
    with pytest.raises(StorageError, match="does not exist"):
        ids_in("s3://no-such-bucket/list.csv")
