"""Where blocks of ratings lie: in Spark's executors, or on the driver if they are few.

A Spark job takes about a tenth of a second, even if its tasks have nothing to do. For a few hundred thousand ratings
that is many times what numpy needs for a half sweep, and a fit has dozens of half sweeps. So the solver asks for
results per block, and does not know where they are computed. Both places give the same results, since the blocks,
their order and the code are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession

from spark_app.model.half_sweep import Block

T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class Shared(Protocol[V_co]):
    """A value that functions of blocks can read."""

    @property
    def value(self) -> V_co:
        """The value."""

    def destroy(self) -> None:
        """Free its memory."""


class Blocks(Protocol):
    """Blocks of ratings, in a fixed order."""

    def each(self, function: Callable[[Block], T]) -> list[T]:
        """The result of the function for each block, in the order of the blocks, on the driver."""

    def frame(self, spark: SparkSession, function: Callable[[Block], tuple[Any, ...]], schema: str) -> DataFrame:
        """A frame with one row per block: what the function gives for it."""

    def share(self, value: T) -> Shared[T]:
        """Make a value available to functions of blocks."""

    def unpersist(self) -> None:
        """Free the memory of the blocks."""


@dataclass(frozen=True)
class SparkBlocks:
    """Blocks in the partitions of a persisted RDD, one in each: `each` is a Spark job, and `share` a broadcast."""

    rdd: RDD[Block]

    def each(self, function: Callable[[Block], T]) -> list[T]:
        """Run one job, with one task per block."""
        return self.rdd.map(function).collect()

    def frame(self, spark: SparkSession, function: Callable[[Block], tuple[Any, ...]], schema: str) -> DataFrame:
        """Make the rows in Spark's tasks, and leave them there."""
        return spark.createDataFrame(self.rdd.map(function), schema)

    def share(self, value: T) -> Shared[T]:
        """Broadcast the value."""
        return self.rdd.context.broadcast(value)

    def unpersist(self) -> None:
        """Unpersist the RDD."""
        self.rdd.unpersist()


@dataclass
class LocalBlocks:
    """Blocks in the memory of the driver."""

    blocks: Sequence[Block]

    def each(self, function: Callable[[Block], T]) -> list[T]:
        """Call the function for one block after the other."""
        return [function(block) for block in self.blocks]

    def frame(self, spark: SparkSession, function: Callable[[Block], tuple[Any, ...]], schema: str) -> DataFrame:
        """Make the rows here, and give them to Spark."""
        return spark.createDataFrame(self.each(function), schema)

    def share(self, value: T) -> Shared[T]:
        """Hold the value."""
        return _Held(value)

    def unpersist(self) -> None:
        """Let go of the blocks."""
        self.blocks = ()


@dataclass(frozen=True)
class _Held(Generic[T]):
    """A value on the driver."""

    value: T

    def destroy(self) -> None:
        """Do nothing: Python frees the value."""
