"""Pack the package for spark-submit's --py-files, the same bytes for the same files: tools/package.py FILE.zip."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parents[1]


def pack(target: Path) -> None:
    """Write spark_app, with the templates of the report, as a zip that Python imports from."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files = (path for path in (ROOT / "spark_app").rglob("*") if path.is_file() and path.suffix != ".pyc")
    with ZipFile(target, "w") as archive:
        for path in sorted(files):
            # ZipInfo has a fixed date: a file that is only touched changes nothing.
            archive.writestr(ZipInfo(path.relative_to(ROOT).as_posix()), path.read_bytes(), ZIP_DEFLATED)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
