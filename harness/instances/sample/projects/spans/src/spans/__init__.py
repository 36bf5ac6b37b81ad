"""Half-open intervals, sets of them, and the calendar arithmetic on top."""

from .calendar import day_interval, hours_per_day, split_by_day
from .duration import format_duration, parse_duration
from .interval import Interval
from .intervalset import IntervalSet
from .schedule import find_slots, working_hours

__all__ = [
    "Interval",
    "IntervalSet",
    "day_interval",
    "find_slots",
    "format_duration",
    "hours_per_day",
    "parse_duration",
    "split_by_day",
    "working_hours",
]
