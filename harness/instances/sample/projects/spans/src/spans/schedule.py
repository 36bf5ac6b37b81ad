"""Working hours and free slots."""

from datetime import datetime, time, timedelta

from .calendar import split_by_day
from .interval import Interval
from .intervalset import IntervalSet
from .timeline import elapsed, shift

WEEKDAYS = frozenset(range(5))


def working_hours(interval, opens=time(9), closes=time(17), weekdays=WEEKDAYS):
    """The working hours that fall into `interval`, as an IntervalSet; weekday 0 is Monday."""
    found = IntervalSet()
    for day, part in split_by_day(interval):
        if day.weekday() not in weekdays:
            continue
        zone = part.start.tzinfo
        shop = Interval(datetime.combine(day, opens, zone), datetime.combine(day, closes, zone))
        common = shop.intersection(part)
        if common:
            found.add(common)
    return found


def find_slots(free, length, step=None):
    """Slots of `length` inside the intervals of `free`, one every `step` (default: back to back), in order.

    `length` and `step` are real time: a slot of three hours lasts three hours also in the night in which clocks change.
    """
    step = length if step is None else step
    if length <= timedelta() or step <= timedelta():
        raise ValueError("length and step must be longer than nothing")
    for interval in free:
        start = interval.start
        while elapsed(start, interval.end) >= length:
            yield Interval(start, shift(start, length))
            start = shift(start, step)
