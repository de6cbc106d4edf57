"""The folder with the Spark settings for the version of Spark that is installed here."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DERIVED = Path(sys.prefix) / "conf"
"""Set-up puts the settings for Spark 3.5 here, into that version's virtual environment."""

CONF = DERIVED if DERIVED.is_dir() else ROOT / "conf"
"""The folder with `local`, `s3` and `cluster`."""
