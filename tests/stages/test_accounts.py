from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.settings import Clean, Settings
from spark_app.stages.accounts import check_reject_share
from spark_app.zones.checked import Checked
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone

ZONE = ProcessedZone("/out")
GATE = Settings(clean=Clean(max_reject_share=0.2))


def check(rejected: int) -> RunRecord:
    """A run in which an earlier stage counted something that is not a table."""
    reasons = {"rating is not on the scale": rejected} if rejected else {}
    checked = Checked(MagicMock(), None, 10 - rejected, reasons, kept_rows=10 - rejected)
    record = RunRecord("pipeline", Settings())
    record.rows = {"downloads": {"files": 2}}
    check_reject_share(record, {"ratings": checked}, ZONE, GATE)
    return record


def test_what_an_earlier_stage_has_counted_is_no_table_of_etl() -> None:
    assert check(1).rows == {"downloads": {"files": 2}}


def test_too_many_rejects_name_share_reason_and_place() -> None:
    with pytest.raises(TooManyRejectsError) as failure:
        check(3)
    assert "3 of 10 rows of ratings (30.0%) were rejected, more than clean.max_reject_share=0.2" in str(failure.value)
    assert "most often: rating is not on the scale" in str(failure.value)
    assert "/out/delta/rejects" in str(failure.value)


def test_a_further_file_may_have_no_rows() -> None:
    checked = Checked(MagicMock(), None, 0, {}, kept_rows=0)
    check_reject_share(RunRecord("etl", Settings()), {"ratings": checked}, ZONE, GATE)
