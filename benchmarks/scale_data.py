"""The raw files of a scale: the output of the product's own generator, and a second delivery that is not clean.

For every 200 ratings of the first file, the second file, `ratings-later.csv`, has a line that rates the same movie
again, at another time or in the same second. For every 1,000 ratings it has a line that is broken in one of many ways,
or looks broken. So the rules and the de-duplication have work to do, and no job rejects more than
`clean.max_reject_share`.
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
"""The pattern of both files, for the setting `raw.ratings`."""

HEADER = b"userId,movieId,rating,timestamp"
REPEATED, BROKEN = 0.005, 0.001
"""Lines of each type in the second file, as shares of the ratings in the first."""

YEAR = 31_536_000


@dataclass(frozen=True)
class Scale:
    """The size of the generated data."""

    name: str
    users: int
    movies: int
    ratings: int

    @property
    def options(self) -> list[str]:
        """The command line options of `jobs/ingest.py`."""
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
"""The scales by name: the size of MovieLens 1M, a size between, and the size of MovieLens 25M."""

Fields = tuple[int, int, float, int]
"""A rating: userId, movieId, stars, second."""

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
    lambda f: b"%d,%d,%.1f,1999-31-12" % f[:3],
)
"""Lines that break a rule."""

ODD: tuple[Callable[[Fields], bytes], ...] = (
    lambda f: b'"%d","%d",%.1f,%d' % f,
    lambda f: b" %d , %d,%.1f, %d" % f,
    lambda f: b"%d,%d,%.3e,%d" % f,
    lambda f: b"%d,%d,%.1f,%d000" % f,
)
"""Lines that look broken but follow every rule."""


def deliver_later(raw: Path) -> None:
    """Write the second file beside `ratings.csv` in the folder `raw`."""
    rng = np.random.default_rng((SEED, 3))
    repeats: list[bytes] = []
    others: list[bytes] = []
    for batch in pyarrow.csv.open_csv(raw / "ratings.csv"):
        repeats += _repeats(batch.take(_picked(rng, batch.num_rows, REPEATED)), rng)
        others += _others(batch.take(_picked(rng, batch.num_rows, BROKEN)), rng)
    # The first lines are good, because readers infer the types of the columns from them.
    first, rest = repeats[: len(repeats) // 2], repeats[len(repeats) // 2 :] + others
    rest = [rest[place] for place in rng.permutation(len(rest))]
    (raw / LATER).write_bytes(b"\n".join([HEADER, *first, *rest, b""]))


def _picked(rng: np.random.Generator, rows: int, share: float) -> pa.Array:
    return pa.array(np.flatnonzero(rng.random(rows) < share))


def _rows(batch: pa.RecordBatch) -> Iterator[Fields]:
    return zip(*(batch.column(place).to_pylist() for place in range(batch.num_columns)), strict=True)


def _repeats(batch: pa.RecordBatch, rng: np.random.Generator) -> Iterator[bytes]:
    """Lines that rate the same movies again: a fifth in the same second, the others up to a year before or after."""
    for user, movie, _, second in _rows(batch):
        shift = 0 if rng.random() < 0.2 else int(rng.integers(-YEAR, YEAR))  # noqa: PLR2004
        yield b"%d,%d,%.1f,%d" % (user, movie, rng.integers(1, 11) / 2, second + shift)


def _others(batch: pa.RecordBatch, rng: np.random.Generator) -> Iterator[bytes]:
    writers = (*BREAKS, *ODD)
    for fields in _rows(batch):
        yield writers[rng.integers(len(writers))](fields)
