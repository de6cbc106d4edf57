"""Published data stays complete, whatever happens to a run: readers see the old or the new, never half of each."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.compute as pc
import pytest

from spark_app.platform import storage
from spark_app.zones import published
from tests.reliability.conftest import LENGTHS, ROWS, SOAK, Made, Place, kill_all

pytestmark = pytest.mark.long

KILLS = 20 if SOAK else 3
SEED = 6
SECONDS = {"recommend": 6.0, "etl": 8.0, "train": 12.0, "explore": 4.0, "ingest": 0.5, "catalog": 4.0}
"""Within these seconds a stage is killed: about the time it takes. Stages that publish what readers read come first."""

PAUSE = 0.2
"""Seconds between two reads of a reader, so that reading does not slow down the runs."""


def moments(count: int) -> list[tuple[str, float]]:
    """Stages, all in turn, and the seconds after their start at which they are killed."""
    drawn = random.Random(SEED)  # noqa: S311
    stages = list(SECONDS)
    return [(stages[i % len(stages)], drawn.uniform(0, SECONDS[stages[i % len(stages)]])) for i in range(count)]


class Reader:
    """A reader that reads all published data again and again, and notes what is not complete."""

    def __init__(self, place: Place, made: Made) -> None:
        self._place, self._made = place, made
        self._movies = storage.parquet(place.zone.final_file).to_table()
        self.wrong: list[str] = []
        self.reads = 0

    def read(self) -> None:
        """Read the CSV and the tables once."""
        zone = self._place.zone
        if storage.read_text(zone.recommendations_csv) not in self._made.csv.values():
            self.wrong.append("the CSV is neither the old nor the new")
        lists = zone.rows("recommendations", columns=["userId", "rank"])
        users, longest = len(pc.unique(lists["userId"])), pc.max(lists["rank"]).as_py()
        if longest not in LENGTHS or lists.num_rows != users * longest:
            self.wrong.append(f"the table of lists is neither the old nor the new: {lists.num_rows} rows")
        if storage.parquet(zone.final_file).to_table() != self._movies:
            self.wrong.append("the aggregates are not whole")
        if zone.rows("ratings", columns=["userId"]).num_rows != ROWS:
            self.wrong.append("the table of ratings is not whole")
        self.reads += 1

    @contextmanager
    def reading_on(self) -> Iterator[None]:
        """Read in a loop, in another thread."""
        ended = threading.Event()

        def read_on() -> None:
            while not ended.is_set():
                try:
                    self.read()
                except Exception as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                ended.wait(PAUSE)

        thread = threading.Thread(target=read_on)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_killed_runs_leave_what_was_published_and_the_next_one_succeeds(place: Place, made: Made) -> None:
    made.copy_to(place)
    reader = Reader(place, made)
    killed = 0
    with reader.reading_on():
        for number, (stage, seconds) in enumerate(moments(KILLS)):
            # Lists of another length, and all files once more, so that each stage has something to publish.
            length = LENGTHS[number % 2]
            process = place.start(stage, "--set", f"recommend.n={length}", "--set", "input.take=all")
            assert process.stdout
            for line in process.stdout:
                if f"{stage}: started" in line:
                    break
            time.sleep(seconds)
            killed += process.poll() is None
            kill_all(process)
            place.wait_for_lease()
            reader.read()
        assert killed >= KILLS / 2, "most runs were still under way"
        place.run("pipeline", "--set", f"recommend.n={LENGTHS[0]}")
        assert storage.read_text(place.zone.recommendations_csv) == made.csv[LENGTHS[0]]
    assert reader.wrong == []
    assert reader.reads > 10 * KILLS
    assert published.user(place.zone, "1")["recommendations"]
    assert not storage.exists(f"{place.zone.staging}/lists")


def test_of_two_runs_at_once_one_wins_and_the_other_is_told(place: Place, made: Made) -> None:
    made.copy_to(place)
    both = [place.start("etl", "--set", "input.take=all") for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 6], said
    loser = said[codes.index(6)]
    assert f"ERROR   etl: {place.zone.root} is in use by run " in loser
    assert place.zone.rows("ratings").num_rows == ROWS
