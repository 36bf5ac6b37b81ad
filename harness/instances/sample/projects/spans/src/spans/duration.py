"""ISO 8601 durations with weeks, days and smaller units, such as P1DT2H30M."""

import re
from datetime import timedelta

_PATTERN = re.compile(
    r"(?P<sign>[+-])?P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?"
)


def parse_duration(text):
    """"PT1H30M" -> timedelta. Years and months have no fixed length and are refused."""
    match = _PATTERN.fullmatch(text.strip())
    if not match or text.rstrip().endswith(("P", "T")):
        raise ValueError(f"not an ISO 8601 duration of weeks, days and time: {text!r}")
    numbers = {
        unit: float(number.replace(",", "."))
        for unit, number in match.groupdict().items()
        if number and unit != "sign"
    }
    duration = timedelta(**numbers)
    return -duration if match["sign"] == "-" else duration


def format_duration(duration):
    """timedelta -> "P1DT2H30M"; the shortest form, "PT0S" for nothing, "-PT1H" for an hour less than nothing."""
    sign = "-" if duration < timedelta() else ""
    duration = abs(duration)
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{duration.days}D" if duration.days else ""
    clock = f"{hours}H" if hours else ""
    clock += f"{minutes}M" if minutes else ""
    if duration.microseconds:
        clock += f"{seconds}.{duration.microseconds:06d}".rstrip("0") + "S"
    elif seconds:
        clock += f"{seconds}S"
    if not days and not clock:
        return "PT0S"
    return f"{sign}P{days}{'T' + clock if clock else ''}"
