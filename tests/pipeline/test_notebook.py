"""The notebook: stored without outputs, and run from end to end on what a real run published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.pipeline.conftest import Zones

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "explore.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def test_it_is_kept_without_outputs(notebook: Any) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_it_tells_its_story_of_a_real_run(notebook: Any, movielens: Zones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVIE_RECO_PROCESSED", str(movielens.processed))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 6
    text = "\n".join(output.get("text", "") for output in outputs) + "\n".join(
        data.get("text/plain", "") for data in shown
    )
    for said in ("100,836", "Forrest Gump (1994)", "NDCG@10 is ", "you liked ", "Liked by the same people"):
        assert said in text
    assert not [output for output in outputs if output.get("name") == "stderr"]
