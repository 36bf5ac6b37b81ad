from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from spans import Interval, IntervalSet, find_slots, working_hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(*parts):
    return datetime(*parts, tzinfo=BERLIN)


def test_working_hours_skip_the_weekend():
    week = Interval(at(2024, 6, 6, 12), at(2024, 6, 10, 10))
    assert working_hours(week) == IntervalSet(
        [
            Interval(at(2024, 6, 6, 12), at(2024, 6, 6, 17)),
            Interval(at(2024, 6, 7, 9), at(2024, 6, 7, 17)),
            Interval(at(2024, 6, 10, 9), at(2024, 6, 10, 10)),
        ]
    )


def test_working_hours_of_another_trade():
    sunday = Interval(at(2024, 6, 9), at(2024, 6, 10))
    bakery = working_hours(sunday, opens=time(7), closes=time(11), weekdays={6})
    assert bakery.total(timedelta()) == timedelta(hours=4)


def test_slots_back_to_back():
    free = IntervalSet([Interval(at(2024, 6, 3, 9), at(2024, 6, 3, 10)), Interval(at(2024, 6, 3, 11), at(2024, 6, 3, 12))])
    slots = list(find_slots(free, timedelta(minutes=45)))
    assert [slot.start.hour for slot in slots] == [9, 11]


def test_slots_with_a_step():
    free = IntervalSet([Interval(at(2024, 6, 3, 9), at(2024, 6, 3, 10))])
    slots = list(find_slots(free, timedelta(minutes=30), step=timedelta(minutes=15)))
    assert [slot.start.minute for slot in slots] == [0, 15, 30]


def test_slots_need_a_length():
    with pytest.raises(ValueError, match="longer than nothing"):
        list(find_slots(IntervalSet(), timedelta()))


def test_slots_in_the_night_when_clocks_go_forward():
    night = IntervalSet([Interval(at(2024, 3, 31, 0), at(2024, 3, 31, 6))])
    slots = list(find_slots(night, timedelta(hours=2)))
    assert [slot.start.hour for slot in slots] == [0, 3]
    assert all(slot.duration == timedelta(hours=2) for slot in slots)


def test_slots_in_the_night_when_clocks_go_back():
    night = IntervalSet([Interval(at(2024, 10, 27, 0), at(2024, 10, 27, 5))])
    slots = list(find_slots(night, timedelta(hours=2)))
    assert [slot.start.hour for slot in slots] == [0, 2, 3]
    assert all(slot.duration == timedelta(hours=2) for slot in slots)
