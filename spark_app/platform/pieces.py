"""Rows packed into pieces before a shuffle, one piece for each part: a shuffle moves a few large values quickly.

Shuffling the rows themselves would take as long as the work that is done on them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

MULTIPLIER = 2_654_435_761
"""The factor of Fibonacci hashing: D. Knuth: The Art of Computer Programming, volume 3, section 6.4."""


def cut(numbers: NDArray[np.uint16], parts: int) -> tuple[NDArray[np.intp], list[tuple[int, slice]]]:
    """An order that groups rows by part, and the slice of that order that belongs to each part (none if it is empty).

    `numbers` is the part of each row, as small integers, because numpy sorts those in linear time.
    """
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(parts + 1))
    used = np.flatnonzero(np.diff(ends)).tolist()
    return order, [(part, slice(ends[part], ends[part + 1])) for part in used]


def part_of(users: NDArray[np.int32], parts: int) -> NDArray[np.uint16]:
    """The part of each user. It depends on the user's id alone."""
    hashed = (users.astype(np.uint32) * np.uint64(MULTIPLIER) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)
    return (hashed % np.uint64(parts)).astype(np.uint16)


class ByPart(AccumulatorParam[dict[int, Any]]):
    """Collects a value of each part on the driver, beside the rows of a task. If a task runs twice, it counts once."""

    def zero(self, value: dict[int, Any]) -> dict[int, Any]:  # noqa: ARG002
        """No part."""
        return {}

    def addInPlace(self, value1: dict[int, Any], value2: dict[int, Any]) -> dict[int, Any]:  # noqa: N802
        """The values of both; a part that is in both has the same."""
        return value1 | value2


def as_bytes(batch: pa.RecordBatch) -> bytes:
    """A record batch as the bytes of an Arrow stream, with its schema."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def from_bytes(packed: bytes | pa.Buffer) -> pa.Table:
    """The rows in the bytes of an Arrow stream."""
    return pa.ipc.open_stream(packed).read_all()


def partition_keys(spark: SparkSession) -> NDArray[np.int32]:
    """For each partition of the session's shuffles, a number that Spark's hash assigns to it.

    With the partition numbers themselves as keys, some partitions would get the rows of two and others would be empty.
    """
    return _keys_of(spark, int(spark.conf.get("spark.sql.shuffle.partitions") or 1))


@functools.cache
def _keys_of(spark: SparkSession, partitions: int) -> NDArray[np.int32]:
    tried = 16 * partitions
    while True:
        key = F.col("id").cast("int")
        rows = spark.range(0, tried, 1, 1).select(F.pmod(F.hash(key), F.lit(partitions))).collect()
        places, keys = np.unique([place for (place,) in rows], return_index=True)
        if len(places) == partitions:
            return keys.astype(np.int32)
        tried *= 2
