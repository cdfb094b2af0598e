"""Cron expressions as crontab(5) has them: APScheduler counts the days of the week from Monday, cron from Sunday."""

from datetime import UTC, datetime

from apscheduler.triggers.cron import CronTrigger

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def cron_trigger(expression: str) -> CronTrigger:
    """Return the trigger of an expression of five fields, in UTC. Raises ValueError for one that is none."""
    fields = expression.split()
    if len(fields) == 5:
        fields[4] = ",".join(_days(part) for part in fields[4].lower().split(","))
    trigger = CronTrigger.from_crontab(" ".join(fields), timezone=UTC)
    if trigger.get_next_fire_time(None, datetime.now(UTC)) is None:
        raise ValueError("it never comes")
    return trigger


def _days(part: str) -> str:
    """Write one part of the fifth field, such as `1-5`, `*/2` or `sun`, as a list of names of days."""
    days, _, step = part.partition("/")
    if days == "*":
        first, last = 0, 6
    else:
        begin, dash, end = days.partition("-")
        first = _number(begin)
        last = _number(end) if dash else (6 if step else first)
        last += 7 if last < first else 0  # fri-mon
    try:
        chosen = range(first, last + 1, int(step or 1))
    except ValueError:
        raise ValueError(f"{part!r} is no day of the week") from None
    return "*" if len(chosen) >= len(_DAYS) else ",".join(_DAYS[day % 7] for day in chosen)


def _number(day: str) -> int:
    if day in _DAYS:
        return _DAYS.index(day)
    if day.isascii() and day.isdigit() and int(day) <= len(_DAYS):
        return int(day)
    raise ValueError(f"{day!r} is no day of the week: 0 to 7, or {', '.join(_DAYS)}")
