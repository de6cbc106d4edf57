"""The raw files of a scale: what the product's own generator makes, and a second delivery that is not clean.

The second file, `ratings-later.csv`, has a line more for every 200 ratings of the first that rates the same movie
again, at another time or in the same second, and one for every 1,000 that is broken in one of a dozen ways. So the
rules and the de-duplication have something to do, and no job turns away more than `clean.max_reject_share`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

SEED = 42
LATER = "ratings-later.csv"
DELIVERIES = "ratings*.csv"
"""Both files, as `raw.ratings` names them."""

HEADER = b"userId,movieId,rating,timestamp"
REPEATED, BROKEN = 0.005, 0.001
"""Lines of the second file, as shares of the ratings in the first."""

YEAR = 31_536_000


@dataclass(frozen=True)
class Scale:
    """How much is generated."""

    name: str
    users: int
    movies: int
    ratings: int

    @property
    def options(self) -> list[str]:
        """What `jobs/ingest.py` has to be told."""
        sizes = {"users": self.users, "movies": self.movies, "ratings": self.ratings, "seed": SEED}
        values = ["source=synthetic", *(f"{key}={value}" for key, value in sizes.items())]
        return [word for value in values for word in ("--set", f"ingest.{value}")]


SCALES = {
    scale.name: scale
    for scale in (
        Scale("1m", 6_040, 3_900, 1_000_209),
        Scale("5m", 31_000, 15_600, 5_000_000),
        Scale("25m", 162_541, 62_423, 25_000_095),
    )
}
"""As large as MovieLens 1M, one between, and as large as MovieLens 25M."""

Fields = tuple[int, int, float, int]
BREAKS: tuple[Callable[[Fields], bytes], ...] = (
    lambda _: HEADER,
    lambda f: b"%d,%d,%.1f" % f[:3],
    lambda f: b"%d,%d,%.1f,%d,again" % f,
    lambda f: b'"%d,%d,%.1f,%d' % f,
    lambda f: b"%d,\xff%d,%.1f,%d" % f,
    lambda f: b"u%d,%d,%.1f,%d" % f,
    lambda f: b"%d.5,%d,%.1f,%d" % f,
    lambda f: b"-%d,%d,%.1f,%d" % f,
    lambda f: b"%d,,%.1f,%d" % (f[0], f[2], f[3]),
    lambda f: b"%d,2147483647,%.1f,%d" % (f[0], f[2], f[3]),
    lambda f: b"%d,2147483648,%.1f,%d" % (f[0], f[2], f[3]),
    lambda f: b"%d,%d,%.1f,%d" % (f[0], f[1], f[2] + 5, f[3]),
    lambda f: b"%d,%d,3.7,%d" % (f[0], f[1], f[3]),
    lambda f: b"%d,%d,NaN,%d" % (f[0], f[1], f[3]),
    lambda f: b"%d,%d,,%d" % (f[0], f[1], f[3]),
    lambda f: b"%d,%d,%.1f,12345" % f[:3],
    lambda f: b"%d,%d,%.1f,%d000" % f,
    lambda f: b"%d,%d,%.1f,1999-12-31" % f[:3],
)
ODD: tuple[Callable[[Fields], bytes], ...] = (
    lambda f: b'"%d","%d",%.1f,%d' % f,
    lambda f: b" %d , %d,%.1f, %d" % f,
    lambda f: b"%d,%d,%.3e,%d" % f,
)
"""Lines that look broken and are not."""


def deliver_later(raw: Path) -> None:
    """Write the second file beside `ratings.csv`, which is read as a stream."""
    rng = np.random.default_rng((SEED, 3))
    repeats: list[bytes] = []
    others: list[bytes] = []
    for batch in pyarrow.csv.open_csv(raw / "ratings.csv"):
        repeats += _repeats(batch.take(_picked(rng, batch.num_rows, REPEATED)), rng)
        others += _others(batch.take(_picked(rng, batch.num_rows, BROKEN)), rng)
    # The first lines are whole, for they tell a reader the types of the columns.
    first, rest = repeats[: len(repeats) // 2], repeats[len(repeats) // 2 :] + others
    rest = [rest[place] for place in rng.permutation(len(rest))]
    (raw / LATER).write_bytes(b"\n".join([HEADER, *first, *rest, b""]))


def _picked(rng: np.random.Generator, rows: int, share: float) -> pa.Array:
    return pa.array(np.flatnonzero(rng.random(rows) < share))


def _rows(batch: pa.RecordBatch) -> Iterator[Fields]:
    return zip(*(batch.column(place).to_pylist() for place in range(batch.num_columns)), strict=True)


def _repeats(batch: pa.RecordBatch, rng: np.random.Generator) -> Iterator[bytes]:
    """The movie rated again: a fifth of the times in the same second, else up to a year before or after."""
    for user, movie, _, second in _rows(batch):
        later = 0 if rng.random() < 0.2 else int(rng.integers(-YEAR, YEAR))  # noqa: PLR2004
        yield b"%d,%d,%.1f,%d" % (user, movie, rng.integers(1, 11) / 2, second + later)


def _others(batch: pa.RecordBatch, rng: np.random.Generator) -> Iterator[bytes]:
    kinds = (*BREAKS, *ODD)
    for fields in _rows(batch):
        yield kinds[rng.integers(len(kinds))](fields)
