"""Write conf/pipeline.toml: every setting with its default and its docstring, from spark_app/platform/settings.py."""

from __future__ import annotations

import textwrap
from pathlib import Path

import tomlkit

from spark_app.platform.settings import SET_BY_THE_INPUT, Settings

TARGET = Path(__file__).resolve().parents[1] / "conf" / "pipeline.toml"
WIDTH = 120
HEAD = (
    "What the jobs do: every setting with its default. A copy of this file with a few lines changed is a --config "
    "file; `make settings` writes this one. How Spark runs is decided by the folder that SPARK_CONF_DIR names."
)


def as_toml() -> str:
    """The text of the file. A setting without a fixed default becomes a comment with an example."""
    parts = [_comment(HEAD)]
    for section, field in Settings.model_fields.items():
        group = field.default.__class__
        parts += ["", _comment(group.__doc__ or ""), f"[{section}]"]
        for key, setting in group.model_fields.items():
            is_left_out = setting.default is None or f"{section}.{key}" in SET_BY_THE_INPUT
            value = setting.examples[0] if setting.examples else getattr(field.default, key)
            line = f"{key} = {tomlkit.item(value).as_string()}"
            parts += ["", _comment(setting.description or ""), f"# {line}" if is_left_out else line]
    return "\n".join(parts) + "\n"


def _comment(text: str) -> str:
    plain = " ".join(text.split())
    return textwrap.fill(plain, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


if __name__ == "__main__":
    TARGET.write_text(as_toml())
