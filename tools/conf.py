"""Where the settings of the Spark that is installed here are."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DERIVED = Path(sys.prefix) / "conf"
"""Set-up puts those of an older generation into its environment."""

CONF = DERIVED if DERIVED.is_dir() else ROOT / "conf"
"""The folder with `local`, `s3` and `cluster`."""
