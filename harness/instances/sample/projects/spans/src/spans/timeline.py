"""Arithmetic on the time line.

Python compares, subtracts and adds datetimes of one zone by the wall clock, which is wrong by the size of the jump
whenever the clocks change in between. These helpers go by way of UTC.
"""

from datetime import datetime, timezone


def is_aware(value):
    """Whether `value` is a datetime that names a point on the time line."""
    return isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None


def elapsed(start, end):
    """`end - start`; for aware datetimes the time that really passes between them."""
    if is_aware(start) and is_aware(end):
        return end.astimezone(timezone.utc) - start.astimezone(timezone.utc)
    return end - start


def shift(moment, delta):
    """`moment + delta`; for an aware datetime the moment `delta` later on the time line, in the same zone."""
    if is_aware(moment):
        return (moment.astimezone(timezone.utc) + delta).astimezone(moment.tzinfo)
    return moment + delta
