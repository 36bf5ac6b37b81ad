from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from spans import Interval, day_interval, hours_per_day, split_by_day

BERLIN = ZoneInfo("Europe/Berlin")
SAO_PAULO = ZoneInfo("America/Sao_Paulo")  # clocks went forward at midnight until 2018


def at(zone, *parts):
    return datetime(*parts, tzinfo=zone)


def test_split_within_one_day():
    interval = Interval(at(BERLIN, 2024, 6, 1, 8), at(BERLIN, 2024, 6, 1, 12))
    assert list(split_by_day(interval)) == [(date(2024, 6, 1), interval)]


def test_split_over_midnight():
    interval = Interval(at(BERLIN, 2024, 6, 1, 22), at(BERLIN, 2024, 6, 3, 2))
    assert hours_per_day(interval) == {date(2024, 6, 1): 2, date(2024, 6, 2): 24, date(2024, 6, 3): 2}


def test_interval_ending_at_midnight_does_not_touch_the_next_day():
    interval = Interval(at(BERLIN, 2024, 6, 1), at(BERLIN, 2024, 6, 2))
    assert list(hours_per_day(interval)) == [date(2024, 6, 1)]


def test_split_in_another_zone():
    interval = Interval(at(timezone.utc, 2024, 6, 1, 21), at(timezone.utc, 2024, 6, 1, 23))
    assert list(hours_per_day(interval, BERLIN)) == [date(2024, 6, 1), date(2024, 6, 2)]


def test_naive_datetimes_are_refused():
    with pytest.raises(ValueError, match="time zone"):
        list(split_by_day(Interval(datetime(2024, 1, 1), datetime(2024, 1, 2))))


def test_empty_interval_touches_no_day():
    moment = at(BERLIN, 2024, 6, 1, 8)
    assert list(split_by_day(Interval(moment, moment))) == []


def test_day_interval():
    assert day_interval(date(2024, 6, 1), BERLIN).duration == timedelta(hours=24)


def test_hours_on_days_when_clocks_change():
    spring = Interval(at(BERLIN, 2024, 3, 30), at(BERLIN, 2024, 4, 2))
    assert list(hours_per_day(spring).values()) == [24, 23, 24]
    autumn = Interval(at(BERLIN, 2024, 10, 26, 12), at(BERLIN, 2024, 10, 28))
    assert list(hours_per_day(autumn).values()) == [12, 25]


def test_hours_from_the_repeated_hour():
    first = at(BERLIN, 2024, 10, 27, 2, 30)
    second = first.replace(fold=1)
    until = at(BERLIN, 2024, 10, 27, 4)
    assert hours_per_day(Interval(first, until)) == {date(2024, 10, 27): 2.5}
    assert hours_per_day(Interval(second, until)) == {date(2024, 10, 27): 1.5}


def test_day_without_midnight():
    day = day_interval(date(2018, 11, 4), SAO_PAULO)
    assert day.start.hour == 1
    assert day.duration == timedelta(hours=23)


def test_split_over_a_missing_midnight():
    interval = Interval(at(SAO_PAULO, 2018, 11, 3, 22), at(SAO_PAULO, 2018, 11, 4, 4))
    assert hours_per_day(interval) == {date(2018, 11, 3): 2, date(2018, 11, 4): 3}
