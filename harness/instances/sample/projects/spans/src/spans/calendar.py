"""Days as intervals of aware datetimes."""

from datetime import datetime, time, timedelta, timezone

from .interval import Interval
from .timeline import elapsed, is_aware


def start_of_day(day, zone):
    """The first moment of a date in a zone.

    That is midnight nearly always. Where clocks jump forward at midnight it does not exist, and the day starts with
    the first moment after the jump: a trip to UTC and back finds it.
    """
    midnight = datetime.combine(day, time(), zone)
    found = midnight.astimezone(timezone.utc).astimezone(zone)
    return found if found.date() == day else midnight


def day_interval(day, zone):
    """The date as an interval: as long as the day really is."""
    return Interval(start_of_day(day, zone), start_of_day(day + timedelta(days=1), zone))


def split_by_day(interval, zone=None):
    """(date, part) for every calendar day that the interval touches, in order.

    `interval` has aware datetimes for bounds; the days are those of `zone`, by default the zone of its start.
    """
    if not (is_aware(interval.start) and is_aware(interval.end)):
        raise ValueError("split_by_day needs datetimes with a time zone")
    zone = zone or interval.start.tzinfo
    start, end = interval.start.astimezone(zone), interval.end.astimezone(zone)
    day = start.date()
    while elapsed(start, end) > timedelta():
        next_day = start_of_day(day + timedelta(days=1), zone)
        stop = next_day if elapsed(next_day, end) > timedelta() else end
        yield day, Interval(start, stop)
        start, day = stop, day + timedelta(days=1)


def hours_per_day(interval, zone=None):
    """{date: hours} over the days of an interval; a day on which clocks change has 23 or 25."""
    return {day: part.duration / timedelta(hours=1) for day, part in split_by_day(interval, zone)}
