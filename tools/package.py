"""Pack the package for spark-submit's --py-files: tools/package.py FILE.zip. Equal files give equal bytes."""

from __future__ import annotations

import sys
from pathlib import Path

from spark_app.aws.artefacts import pack

if __name__ == "__main__":
    pack(Path(sys.argv[1]))
