"""Whatever is delivered, rows in = good + rejected + superseded, and no job crashes."""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as fixed_seed
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from spark_app.cli import run_job
from spark_app.data import records
from spark_app.data.dialect import PLAIN
from spark_app.platform.errors import InputError, TooManyRejectsError
from tests.pipeline.conftest import MOVIES, RATINGS, Zones
from tests.reliability.conftest import SOAK

FILES = 400 if SOAK else 40
FILES_AT_ONCE = 40
ROWS = 280
"""Lines of a file, of which some are blank: 10,000 and more in all, 100,000 in the long form."""

UNHURRIED: dict[str, Any] = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
HEADER = b"userId,movieId,rating,timestamp\n"
FOLDER = ("--set", "raw.ratings=ratings", "--set", "clean.max_reject_share=1.0")

number = st.one_of(
    st.integers(-5, 10).map(str),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(["1e3", "0x10", "1_000", "٣", "+1", " 1", "1 ", "NaN", "inf", "1,5", "4.5", "5.0", "0.5", ""]),
)
second = st.one_of(st.integers(964982000, 964983000).map(str), number)
text = st.one_of(st.text(max_size=40), st.sampled_from(['"', '""', "'", "\\", "\x00", "\ufeff", "=1+1", ",", "\u202e"]))
field = st.one_of(number, text, text.map(lambda found: '"' + found.replace('"', '""') + '"'))
plain = st.tuples(
    st.integers(1, 9).map(str), st.integers(1, 4).map(str), st.sampled_from(["0.5", "3.0", "5.0"]), second
)
odd = st.one_of(st.tuples(number, number, number, second), st.lists(field, max_size=8).map(tuple))
line = st.one_of(
    st.one_of(plain, odd).map(lambda fields: ",".join(fields).encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
)
ending = st.sampled_from([b"\n", b"\r\n"])


def delivered(content: bytes) -> int:
    """The number of records, without the header. Every line must be in one of them."""
    found = list(records.records_of(io.BytesIO(content), "utf-8", PLAIN, ""))
    in_records = b"".join(records.as_delivered(record, "utf-8") for record in found)
    assert in_records.translate(None, b"\r\n") == content.translate(None, b"\r\n")
    return len(found) - 1


@pytest.fixture
def zones(tmp_path: Path) -> Zones:
    return Zones(tmp_path / "raw", tmp_path / "processed")


@pytest.mark.parametrize("seed", range(FILES // FILES_AT_ONCE))
def test_nothing_is_lost(spark: SparkSession, zones: Zones, seed: int) -> None:
    """Several files in one run, some of them compressed."""
    zones.deliver(MOVIES, "")
    (zones.raw / "ratings.csv").unlink()
    (zones.raw / "ratings").mkdir()
    counts = dict[bytes, int]()

    @fixed_seed(seed)
    @settings(max_examples=FILES_AT_ONCE, phases=[Phase.generate], **UNHURRIED)
    @given(st.lists(line, min_size=ROWS, max_size=ROWS), ending, st.booleans())
    def deliver(lines: list[bytes], end: bytes, packed: bool) -> None:
        content = HEADER + end.join(lines) + end
        name = f"{len(list((zones.raw / 'ratings').iterdir())):03}.csv"
        if packed:
            (zones.raw / "ratings" / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (zones.raw / "ratings" / name).write_bytes(content)
        counts[content] = delivered(content)  # a copy is not taken twice

    deliver()
    assert run_job("etl", zones.options(*FOLDER)) == 0
    rows = zones.manifests()[-1]["rows"]["ratings"]
    assert rows["in"] == rows["good"] + rows["rejected"] + rows["superseded"]
    assert rows["in"] == sum(counts.values())


@dataclass(frozen=True)
class Written:
    """A dialect: its settings, and how rows of fields become the bytes of a file."""

    sets: tuple[str, ...]
    encoding: str
    delimiter: str
    quote: Callable[[str], str]
    header: bool = True
    pack: Callable[[bytes], bytes] = bytes

    def line(self, fields: Iterable[str]) -> str:
        return self.delimiter.join(map(self.quote, fields))

    def file(self, lines: Iterable[str], end: str) -> bytes:
        header = [self.line(["userId", "movieId", "rating", "timestamp"])] if self.header else []
        return self.pack((end.join([*header, *lines]) + end).encode(self.encoding, "replace"))


def doubled(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def by_backslash(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def one_line(text: str) -> str:
    return re.sub("[\r\n\t:]", " ", text)


COLUMNS = 'ratings_file.columns=["userId", "movieId", "rating", "timestamp"]'
TABS = r'ratings_file.delimiter="\t"'
NO_QUOTES = ("ratings_file.header=false", "ratings_file.quote=", COLUMNS)
DUMP = ("ratings_file.delimiter=;", "ratings_file.encoding=cp1252", "ratings_file.escape=backslash")
DIALECTS = {
    "line breaks inside quotes": Written((), "utf-8", ",", doubled),
    "UTF-16 of Excel": Written((TABS,), "utf-16", "\t", lambda text: doubled(text.replace("\t", ","))),
    "a dump of a database": Written(DUMP, "cp1252", ";", by_backslash, pack=lzma.compress),
    "tabs without quotes": Written(
        (TABS, "ratings_file.encoding=latin-1", *NO_QUOTES), "latin-1", "\t", one_line, header=False
    ),
    "two colons": Written(
        ("ratings_file.delimiter=::", *NO_QUOTES), "utf-8", "::", one_line, header=False, pack=gzip.compress
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_nothing_is_lost_in_any_dialect(spark: SparkSession, zones: Zones, name: str) -> None:
    """Rows of a few files, well written in a dialect, with any text in their fields."""
    dialect, counts = DIALECTS[name], dict[bytes, int]()
    zones.deliver(MOVIES, "")
    (zones.raw / "ratings.csv").unlink()
    (zones.raw / "ratings").mkdir()

    @fixed_seed(7)
    @settings(max_examples=8, phases=[Phase.generate], **UNHURRIED)
    @given(st.lists(st.one_of(plain, odd), min_size=60, max_size=60), st.sampled_from(["\n", "\r\n"]))
    def deliver(rows: list[tuple[str, ...]], end: str) -> None:
        good = ("1", str(len(counts) + 1), "5.0", "964982703")  # the first lines decide the columns and their types
        lines = [line for row in [*[good] * 60, *rows] if (line := dialect.line(row))]
        content = dialect.file(lines, end)
        (zones.raw / "ratings" / f"{len(counts):03}.csv").write_bytes(content)
        counts[content] = len(lines)

    deliver()
    code = run_job("etl", zones.options(*FOLDER, "--set", 'movies_file.delimiter=","', *sets(*dialect.sets)))
    assert code == 0
    rows = zones.manifests()[-1]["rows"]["ratings"]
    assert rows["in"] == rows["good"] + rows["rejected"] + rows["superseded"]
    assert rows["in"] == sum(counts.values())
    assert rows["rejected"]


def sets(*assignments: str) -> Iterable[str]:
    return itertools.chain.from_iterable(("--set", assignment) for assignment in assignments)


@fixed_seed(1)
@settings(max_examples=FILES, phases=[Phase.generate], **UNHURRIED)
@given(
    st.one_of(
        st.binary(max_size=2_000),
        st.text(max_size=500).map(lambda found: found.encode()),
        st.binary().map(gzip.compress),
    )
)
def test_files_of_any_bytes_are_an_error_of_one_line(
    spark: SparkSession, zones: Zones, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    for movies, ratings in ((MOVIES, content), (content, RATINGS)):
        zones.deliver(movies, ratings)
        assert run_job("etl", zones.options()) in (InputError.exit_code, TooManyRejectsError.exit_code)
        said = capsys.readouterr().err
        assert said.count(" ERROR ") == 1
        assert "Traceback" not in said
