"""The rows of a raw table after they are checked: what is kept, what is rejected, and how many of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_app.data import clean
from spark_app.platform.arrow_files import Mapped, frame_of


@dataclass
class Checked:
    """Checked rows. `kept` are typed, one row per key; `rejected`, if there are any, has file, reason, raw, raw_bytes.

    `good_lines` are the lines that break no rule; of those, all that are not kept are superseded. `rejects` are counts
    by reason, the most frequent first. Where some values are no ratings, `unrated` has the pairs (userId, movieId) that
    were seen without one, and `missing_lines` is the number of lines without any.
    """

    kept: DataFrame
    rejected: DataFrame | None
    good_lines: int
    rejects: Mapping[str, int]
    kept_rows: int | None = None
    """The number of rows in `kept`; None if it is not counted yet: that takes another pass, or a table written."""

    movie_sums: Callable[[], pa.Table] | None = None
    """The sums of `kept` by movie (`aggregates.SUMS`), complete once it is written; None if nothing sums them up."""

    persisted: Sequence[DataFrame] = field(default=())
    unrated: DataFrame | None = None
    unrated_rows: int = 0
    missing_lines: int = 0
    made: Mapped | None = None
    """The rows of `kept` as numpy makes them, to be written without Java; None if Spark makes them."""

    fields: DataFrame | None = None
    """The parsed lines among which all rejected ones are; None if nobody keeps them."""

    @classmethod
    def of_rows(
        cls, rows: DataFrame, columns: Sequence[str], *, has_marks: bool = False, fields: DataFrame | None = None
    ) -> Checked:
        """Checked rows from `checked_movies` or `checked_ratings`, which are persisted and counted here."""
        rows = rows.persist()
        counts = {
            (row["status"], row["reason"]): row["count"] for row in rows.groupBy("status", "reason").count().collect()
        }
        rejects = {reason: count for (status, reason), count in counts.items() if status == clean.REJECTED}
        kept = counts.get((clean.KEPT, None), 0)
        good = kept + counts.get((clean.SUPERSEDED, None), 0)
        return cls(
            clean.kept(rows, columns),
            clean.rejected(rows),
            good,
            _most_frequent_first(rejects),
            kept,
            None,
            [rows],
            clean.unrated(rows) if has_marks else None,
            sum(count for (status, _), count in counts.items() if status == clean.UNRATED),
            sum(count for (status, _), count in counts.items() if status == clean.MISSING),
            fields=fields,
        )

    @classmethod
    def of_judged(
        cls,
        kept: DataFrame | Mapped,
        judged: DataFrame | None,
        fields: DataFrame | None,
        plain_lines: int,
        kept_rows: int | None,
        movie_sums: Callable[[], pa.Table],
        *persisted: DataFrame,
    ) -> Checked:
        """Checked rows from plain lines and others (parsed, and by `judged_ratings`), which are counted here."""
        frame, made = frame_of(kept), kept if isinstance(kept, Mapped) else None
        if judged is None:
            return cls(frame, None, plain_lines, {}, kept_rows, movie_sums, persisted, made=made)
        reasons = judged.groupBy("reject.reason").count().collect()
        counts = {row["reason"]: row["count"] for row in reasons}
        good = plain_lines + counts.pop(None, 0)
        rejected = judged.filter(F.col("reject").isNotNull()).select("reject.*").drop("is_header")
        counts = _most_frequent_first(counts)
        return cls(frame, rejected, good, counts, kept_rows, movie_sums, (*persisted, judged), made=made, fields=fields)

    @property
    def is_at_hand(self) -> bool:
        """Whether reading `kept` again costs little; else it is better read from the table that it was written to."""
        return self.kept_rows is not None

    @property
    def rejected_lines(self) -> int:
        """The number of lines that break a rule."""
        return sum(self.rejects.values())

    @property
    def lines(self) -> int:
        """The number of lines, without headers and blank lines."""
        return self.good_lines + self.rejected_lines + self.unrated_rows + self.missing_lines

    def count_kept(self) -> int:
        """Count the rows in `kept`, if that is not done yet."""
        if self.kept_rows is None:
            self.kept_rows = self.kept.count()
        return self.kept_rows

    def hold(self) -> None:
        """Persist and count `kept`, for a reader that reads it several times."""
        if not self.is_at_hand:
            self.kept = self.kept.persist()
            self.persisted = (*self.persisted, self.kept)
            self.count_kept()

    def unpersist(self) -> None:
        """Free the memory of the rows."""
        for rows in self.persisted:
            rows.unpersist()


def _most_frequent_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
