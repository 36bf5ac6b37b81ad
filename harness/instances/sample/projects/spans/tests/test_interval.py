from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from spans import Interval

BERLIN = ZoneInfo("Europe/Berlin")


def test_half_open():
    interval = Interval(1, 3)
    assert 1 in interval
    assert 3 not in interval


def test_ends_before_start():
    with pytest.raises(ValueError, match="ends before it starts"):
        Interval(3, 1)


def test_empty_interval_is_false():
    assert not Interval(2, 2)
    assert Interval(2, 3)


@pytest.mark.parametrize(("other", "expected"), [((3, 5), False), ((2, 5), True), ((0, 1), False), ((0, 9), True)])
def test_overlaps(other, expected):
    assert Interval(1, 3).overlaps(Interval(*other)) is expected


def test_touching_intervals_have_a_union_but_no_intersection():
    assert Interval(1, 3).union(Interval(3, 4)) == Interval(1, 4)
    assert Interval(1, 3).intersection(Interval(3, 4)) is None


def test_union_of_distant_intervals():
    with pytest.raises(ValueError, match="no single interval"):
        Interval(1, 2).union(Interval(3, 4))


@pytest.mark.parametrize(
    ("other", "expected"),
    [((3, 4), [(1, 3), (4, 9)]), ((0, 4), [(4, 9)]), ((4, 12), [(1, 4)]), ((0, 12), []), ((9, 12), [(1, 9)])],
    ids=["middle", "left", "right", "all", "beside"],
)
def test_difference(other, expected):
    assert Interval(1, 9).difference(Interval(*other)) == [Interval(*part) for part in expected]


def test_duration_of_numbers_and_naive_datetimes():
    assert Interval(1, 4).duration == 3
    assert Interval(datetime(2024, 1, 1), datetime(2024, 1, 2)).duration == timedelta(days=1)


def test_duration_of_a_plain_day():
    day = Interval(datetime(2024, 6, 1, tzinfo=BERLIN), datetime(2024, 6, 2, tzinfo=BERLIN))
    assert day.duration == timedelta(hours=24)


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 31, 23), (10, 27, 25)], ids=["spring", "autumn"])
def test_duration_when_clocks_change(month, day, hours):
    start = datetime(2024, month, day, tzinfo=BERLIN)
    assert Interval(start, start + timedelta(days=1)).duration == timedelta(hours=hours)
