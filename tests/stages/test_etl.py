from __future__ import annotations

import pytest

from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.settings import Clean, Settings
from spark_app.stages.etl import _check_reject_share
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

ZONE = ProcessedZone("/out")
GATE = Settings(clean=Clean(max_reject_share=0.2))


def record_of(rejected: int) -> RunRecord:
    """A run in which an earlier stage counted something that is not a table."""
    record = RunRecord("pipeline", Settings())
    record.rows = {"downloads": {"files": 2}, "ratings": {"in": 10, "good": 10 - rejected, "rejected": rejected}}
    record.rejects = {"ratings": {"rating is not on the scale": rejected} if rejected else {}}
    return record


def test_what_an_earlier_stage_has_counted_is_no_table_of_etl() -> None:
    _check_reject_share(record_of(1), ["ratings"], ZONE, GATE)


def test_too_many_rejects_name_share_reason_and_place() -> None:
    with pytest.raises(TooManyRejectsError) as failure:
        _check_reject_share(record_of(3), ["ratings"], ZONE, GATE)
    assert "3 of 10 rows of ratings (30.0%) were rejected, more than clean.max_reject_share=0.2" in str(failure.value)
    assert "most often: rating is not on the scale" in str(failure.value)
    assert "/out/delta/rejects" in str(failure.value)
