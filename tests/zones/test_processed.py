from __future__ import annotations

import pytest

from spark_app.platform.errors import UsageError
from spark_app.zones.processed import ProcessedZone


@pytest.mark.parametrize("root", ["/data/100%20", "/a%2Fb/zone", "/a\\b"])
def test_a_root_that_would_be_misread_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match=r"has (%2[0F]|\\) in it"):
        ProcessedZone(root)


@pytest.mark.parametrize("root", ["/data/100% new", "/data/5%", "s3://bucket/100%20", "/data/[2026] {1} #2?"])
def test_other_roots_are_taken(root: str) -> None:
    assert ProcessedZone(root).table("ratings") == f"{root}/delta/ratings"
