"""How a raw table is written: its dialect, and the rules of quoting as regular expressions for Python and for Java."""

from __future__ import annotations

import re
import string
import sys
from dataclasses import dataclass, replace

from spark_app.platform.settings import Input, MoviesFile, RatingsFile, TableFile

HAS_POSSESSIVE_GROUPS = sys.version_info >= (3, 11, 5)
"""Whether Python matches possessive groups as it should: earlier ones do not (python/cpython#106052)."""


@dataclass(frozen=True)
class Dialect:
    """How files are written, as `[ratings_file]` and `[movies_file]` say.

    `columns` are the names of the columns of files without a header, None if the first line names them. `encoding` is
    that of files without a byte order mark. If a layout makes the records, this is their dialect; `cells` is that of
    the lines of a matrix. `section` is the section of the settings, for messages.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str = "doubled"
    skip_blanks: bool = False
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None
    rest_in_last: bool = False
    decimal: str = "."
    layout: str = "lines"
    cells: Dialect | None = None
    section: str = "ratings_file"

    @property
    def blanks(self) -> str:
        """The characters that are skipped at the start of a field; none unless the settings say so."""
        return "".join(blank for blank in " \t" if self.skip_blanks and blank not in self.delimiter)

    @property
    def escapes_by_backslash(self) -> bool:
        """Whether a backslash in a line may be an escape."""
        return bool(self.quote) and self.escape == "backslash"


CHARSETS = {
    "utf-8": "UTF-8",
    "ascii": "US-ASCII",
    "iso8859-1": "ISO-8859-1",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
}
"""The encodings, by Python's names, that Spark 4 knows too."""

PLAIN = Dialect()
"""The dialect of MovieLens from 20M on, and of RFC 4180."""


def ratings_dialect(input_settings: Input, file: RatingsFile) -> Dialect:
    """The dialect of the files of ratings."""
    lines = replace(_dialect(input_settings, file), decimal=file.decimal, section="ratings_file")
    if file.layout == "netflix":
        block = (input_settings.item, input_settings.user, input_settings.rating, input_settings.timestamp)
        return replace(lines, layout="netflix", delimiter=",", quote="", columns=block)
    if file.layout == "matrix":
        cell = (input_settings.user, input_settings.item, input_settings.rating)
        return replace(PLAIN, layout="matrix", columns=cell, encoding=file.encoding, decimal=file.decimal, cells=lines)
    return lines


def movies_dialect(input_settings: Input, file: MoviesFile) -> Dialect:
    """The dialect of the files of movies."""
    return replace(_dialect(input_settings, file), rest_in_last=file.rest_in_last, section="movies_file")


def _dialect(input_settings: Input, file: TableFile) -> Dialect:
    return Dialect(
        delimiter=file.delimiter or input_settings.delimiter,
        quote=file.quote,
        escape=file.escape,
        skip_blanks=file.skip_blanks,
        encoding=file.encoding,
        columns=None if file.header else tuple(file.columns),
    )


def literally(text: str) -> str:
    """A text as a regular expression, written so that Java splits by one character in half the time."""
    return "".join(f"\\{letter}" if letter in string.punctuation else letter for letter in text)


def well_quoted(dialect: Dialect) -> str:
    """A line, without its end, in which each field is quoted as a whole, with its inner quotes escaped, or not at all.

    That is RFC 4180. Every quantifier is possessive: Java's matcher recurses for others, and a long line would overflow
    its stack. Python needs `fullmatch`, Java the anchors that it has.
    """
    field = _field(dialect)
    return rf"{field}(?:{literally(dialect.delimiter)}{field})*+"


def for_python(pattern: str) -> re.Pattern[str]:
    """One of these patterns for Python. None of them finds anything else where it goes back, it only takes longer."""
    return re.compile(pattern if HAS_POSSESSIVE_GROUPS else pattern.replace("*+", "*"))


def left_open(dialect: Dialect) -> str:
    """A line, with its end, that ends inside a quoted field: the next line belongs to it."""
    field, delimiter = _field(dialect), literally(dialect.delimiter)
    return rf"(?:{field}{delimiter})*+{_opening(dialect)}"


def closing(dialect: Dialect) -> str:
    """A line, without its end, that begins inside a quoted field and ends outside."""
    field, delimiter = _field(dialect), literally(dialect.delimiter)
    return rf"{_inner(dialect)}{literally(dialect.quote)}(?:{delimiter}{field})*+"


def kept_open(dialect: Dialect) -> str:
    """A line, with its end, that begins and ends inside quoted fields, the same or two."""
    return rf"(?:{closing(dialect)}{literally(dialect.delimiter)}{_opening(dialect)}|{_inner(dialect)})"


def _opening(dialect: Dialect) -> str:
    """The start of a quoted field, to the end of a text that does not close it."""
    return rf"{_blanks(dialect)}{literally(dialect.quote)}{_inner(dialect)}"


def _field(dialect: Dialect) -> str:
    return f"(?:{quoted_field(dialect)}|{bare_field(dialect)})"


def quoted_field(dialect: Dialect) -> str:
    """A field in quotes, with the blanks before it that are skipped."""
    quote = literally(dialect.quote)
    return rf"{_blanks(dialect)}{quote}{_inner(dialect)}{quote}"


def bare_field(dialect: Dialect) -> str:
    """A field without quotes: one that does not begin with a quote."""
    delimiter = literally(dialect.delimiter)
    letters = f"[^{delimiter}]*+" if len(dialect.delimiter) == 1 else rf"(?:(?!{delimiter})[\s\S])*+"
    return f"(?!{_blanks(dialect)}{literally(dialect.quote)}){letters}" if dialect.quote else letters


def _inner(dialect: Dialect) -> str:
    """What stands between the quotes of a field."""
    quote = literally(dialect.quote)
    if dialect.escapes_by_backslash:
        return rf"[^{quote}\\]*+(?:(?:\\[\s\S]|{quote}{quote})[^{quote}\\]*+)*+"
    return rf"[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+"


def _blanks(dialect: Dialect) -> str:
    return f"[{dialect.blanks}]*+" if dialect.blanks else ""


def spark_options(dialect: Dialect, encoding: str, has_line_breaks: bool) -> dict[str, str]:
    """The options by which Spark's own reader of CSV reads files of a dialect.

    Empty if none do: for a layout, a last column that takes the rest, or an encoding that Spark 4 does not know.
    """
    charset = CHARSETS.get(encoding)
    has_no_mark = charset == "UTF-16" and encoding == dialect.encoding  # Spark tells both kinds by the mark
    if charset is None or has_no_mark or dialect.layout != "lines" or dialect.rest_in_last:
        return {}
    options = {
        "header": str(dialect.columns is None).lower(),
        "sep": dialect.delimiter,
        "quote": dialect.quote,
        "escape": "\\" if dialect.escapes_by_backslash else dialect.quote,
    }
    if charset != "UTF-8":
        options["encoding"] = charset
    if has_line_breaks or charset == "UTF-16":  # lines of UTF-16 are only told apart in whole files
        options["multiLine"] = "true"
    if dialect.skip_blanks:
        options["ignoreLeadingWhiteSpace"] = "true"
    return options


def split_fields(record: str, dialect: Dialect) -> list[str] | None:
    """The fields of a record, as `lines.with_fields` reads them; None if its quotes are unbalanced or out of place."""
    if not dialect.quote or dialect.quote not in record:
        limit = len(dialect.columns or ()) - 1 if dialect.rest_in_last else -1
        return [
            _unescaped(part.lstrip(dialect.blanks or "\0"), dialect) for part in record.split(dialect.delimiter, limit)
        ]
    one = for_python(_field(dialect))
    fields, place = list[str](), 0
    while found := one.match(record, place):
        text = found[0].lstrip(dialect.blanks) if dialect.blanks else found[0]
        fields.append(_unescaped(_unquoted(text, dialect), dialect))
        place = found.end()
        if place == len(record):
            return fields
        if not record.startswith(dialect.delimiter, place):
            return None
        place += len(dialect.delimiter)
    return None


def _unquoted(text: str, dialect: Dialect) -> str:
    if not text.startswith(dialect.quote):
        return text
    inner = text[1:-1]
    if dialect.escapes_by_backslash:
        inner = re.sub(rf"\\([\\{literally(dialect.quote)}])", r"\1\1", inner)
    return inner.replace(dialect.quote * 2, dialect.quote)


def _unescaped(text: str, dialect: Dialect) -> str:
    return text.replace("\\\\", "\\") if dialect.escapes_by_backslash else text
