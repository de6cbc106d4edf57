"""Pack the package for spark-submit's --py-files, the same bytes for the same files: tools/package.py FILE.zip."""

from __future__ import annotations

import sys
from pathlib import Path

from spark_app.aws.artefacts import pack

if __name__ == "__main__":
    pack(Path(sys.argv[1]))
