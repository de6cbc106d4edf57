"""Puts the settings of Spark into the wheel: `movie-reco run` needs no checkout. All else is in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONF = Path("conf")
FOLDERS = ("local", "s3")
RULES = {"4.1": None, "3.5": CONF / "spark-3.5.sed"}
"""The rules by which the settings of each generation of Spark are made from those in `conf`."""


class BuildWithConf(build_py):
    """Copies the settings into the package where a wheel is built; an editable install reads those of the checkout."""

    def run(self) -> None:
        """Build the package as usual, and then add the settings."""
        super().run()
        if self.editable_mode:
            return
        for generation, rules in RULES.items():
            target = Path(self.build_lib) / "spark_app" / "conf" / generation
            for folder in FOLDERS:
                shutil.copytree(CONF / folder, target / folder, dirs_exist_ok=True)
                if rules:
                    defaults = target / folder / "spark-defaults.conf"
                    text = subprocess.run(["sed", "-f", rules, defaults], capture_output=True, check=True).stdout  # noqa: S603, S607
                    defaults.write_bytes(text)
            shutil.copy(CONF / "machine.sh", target)


setup(cmdclass={"build_py": BuildWithConf})
