"""Ids and factors as matrices."""

from __future__ import annotations

import numpy as np
import pytest

from spark_app.model import matrices
from spark_app.model.matrices import found_among

LOWEST, HIGHEST = -(2**31), 2**31 - 1


@pytest.mark.parametrize("table_size", [0, matrices.TABLE_SIZE])
@pytest.mark.parametrize(
    "among", [[], [7], [LOWEST, 0, HIGHEST], [LOWEST, LOWEST + 2], [HIGHEST - 3, HIGHEST], list(range(-50, 50, 3))]
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_ids_are_found_by_a_table_as_by_a_search(
    monkeypatch: pytest.MonkeyPatch, table_size: int, among: list[int], kind: type
) -> None:
    monkeypatch.setattr(matrices, "TABLE_SIZE", table_size)
    asked = [LOWEST, HIGHEST, LOWEST + 1, HIGHEST - 1, *among, *range(-60, 60), *among]
    places, is_found = found_among(np.array(asked, dtype=kind), np.array(among, dtype=np.int32))
    assert is_found.tolist() == [one in among for one in asked]
    assert [among[place] for place in places[is_found]] == [one for one in asked if one in among]
    assert len(places) == len(asked)
