"""The accounts of `etl`: what became of each row, in the manifest and the log, and how many may be rejected."""

from __future__ import annotations

from collections.abc import Mapping

from spark_app.data import rules
from spark_app.platform.errors import TooManyRejectsError
from spark_app.platform.log import logger
from spark_app.platform.settings import Settings
from spark_app.zones.checked import Checked
from spark_app.zones.deliveries import Delivery
from spark_app.zones.manifest import RunRecord
from spark_app.zones.processed import ProcessedZone
from spark_app.zones.raw_check import advice


def note_kept(record: RunRecord, table: str, checked: Checked) -> None:
    """Note and log how many good lines of a table are kept, and how many are superseded."""
    kept = checked.count_kept()
    record.rows[table] = {
        "in": checked.lines,
        "good": kept,
        "rejected": checked.rejected_lines,
        "superseded": checked.good_lines - kept,
    }
    if checked.unrated is not None:
        record.rows[table] |= {"unrated": checked.unrated_rows, "missing": checked.missing_lines}
    _log_rows(table, record.rows[table])


def log_rejects(table: str, record: RunRecord, settings: Settings) -> None:
    """Log how many rows of a table are rejected for which reason, with the setting that would take them if any."""
    for reason, count in record.rejects[table].items():
        logger.warning("%s: %s rejected: %s", table, f"{count:,}", _with_remedy(reason, settings))


def _with_remedy(reason: str, settings: Settings) -> str:
    """A reason, with the setting that would take such rows if there is one."""
    remedy = rules.remedy(reason, settings.input)
    return f"{reason} ({remedy})" if remedy else reason


def _log_rows(table: str, rows: Mapping[str, int]) -> None:
    parts = " + ".join(f"{count:,} {part}" for part, count in rows.items() if part != "in")
    logger.info("%s: %s rows in = %s", table, f"{rows['in']:,}", parts)


def account_for_all(record: RunRecord, delivery: Delivery, good: int, unrated: int, settings: Settings) -> None:
    """Count the rows of all deliveries as `ratings`; the counts of this delivery alone move to `delivery`."""
    record.rows["delivery"] = record.rows.get("ratings", dict.fromkeys(("in", "good", "rejected", "superseded"), 0))
    delivered, missing = record.rows["delivery"]["in"], record.rows["delivery"].get("missing", 0)
    taken = delivery.then_taken(delivered, missing, record.rejects.get("ratings", {}), record.run_id)
    rejected = sum(taken.rejects.values())
    superseded = taken.rows - rejected - good - unrated - taken.missing
    record.rows["ratings"] = {"in": taken.rows, "good": good, "rejected": rejected, "superseded": superseded}
    if rules.has_marks(settings.input):
        record.rows["ratings"] |= {"unrated": unrated, "missing": taken.missing}
    record.rejects["ratings"] = dict(sorted(taken.rejects.items(), key=lambda item: -item[1]))
    _log_rows("ratings, all deliveries", record.rows["ratings"])


def check_reject_share(
    record: RunRecord, checked: Mapping[str, Checked], zone: ProcessedZone, settings: Settings
) -> None:
    """Raise TooManyRejectsError if more than `clean.max_reject_share` of the rows of a table were rejected."""
    max_share = settings.clean.max_reject_share
    for table, rows in checked.items():
        share = rows.rejected_lines / rows.lines if rows.lines else 0.0  # a further file may have no rows
        if share > max_share:
            _note_all(record, checked)
            reason = _with_remedy(next(iter(rows.rejects)), settings)
            raise TooManyRejectsError(
                f"{rows.rejected_lines:,} of {rows.lines:,} rows of {table} ({share:.1%}) were rejected, more than "
                f"clean.max_reject_share={max_share:g}; most often: {reason}. Only these rejects were published: "
                f"see {zone.table('rejects')} where run_id = '{record.run_id}'; {advice(settings.raw.path)}".rstrip(
                    "; "
                )
            )


def check_lost_share(
    record: RunRecord, checked: Mapping[str, Checked], zone: ProcessedZone, settings: Settings
) -> None:
    """Raise TooManyRejectsError if more than `clean.max_lost_share` of the ratings were lost with their movies."""
    if "ratings" not in checked:
        return
    begin, rows = rules.lost_movie(settings.input), checked["ratings"].lines
    lost = {reason: count for reason, count in checked["ratings"].rejects.items() if reason.startswith(begin)}
    count = sum(lost.values())
    if count > settings.clean.max_lost_share * rows:
        _note_all(record, checked)
        raise TooManyRejectsError(
            f"{count:,} of {rows:,} rows of ratings ({count / rows:.1%}) are good but for their movie, more than "
            f"clean.max_lost_share={settings.clean.max_lost_share:g}; {_with_remedy(next(iter(lost)), settings)}. Mend "
            f"these lines of {settings.raw.movies}. Only the rejects were published: see {zone.table('rejects')} where "
            f"run_id = '{record.run_id}' and table = 'movies'"
        )


def _note_all(record: RunRecord, checked: Mapping[str, Checked]) -> None:
    """Note what would have been kept, for the manifest of a run that fails."""
    for table, rows in checked.items():
        note_kept(record, table, rows)
