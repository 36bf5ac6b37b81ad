from datetime import date, timedelta

import pytest

from spans import Interval, IntervalSet


def spans(*pairs):
    return IntervalSet(Interval(*pair) for pair in pairs)


def test_add_merges_overlapping_and_touching():
    assert list(spans((1, 3), (5, 7), (3, 4), (6, 9))) == [Interval(1, 4), Interval(5, 9)]


def test_add_bridges_several():
    assert list(spans((1, 2), (3, 4), (5, 6), (0, 9))) == [Interval(0, 9)]


def test_add_keeps_order():
    assert list(spans((5, 6), (1, 2), (3, 4))) == [Interval(1, 2), Interval(3, 4), Interval(5, 6)]


def test_empty_intervals_are_not_kept():
    assert not spans((1, 1))


@pytest.mark.parametrize(("point", "inside"), [(0, False), (1, True), (2, False), (4, True), (5, False)])
def test_contains(point, inside):
    assert (point in spans((1, 2), (3, 5))) is inside


def test_discard_splits_an_interval():
    busy = spans((1, 9))
    busy.discard(Interval(3, 4))
    assert busy == spans((1, 3), (4, 9))


def test_discard_trims_both_ends():
    busy = spans((1, 4), (6, 9))
    busy.discard(Interval(3, 7))
    assert busy == spans((1, 3), (7, 9))


def test_discard_of_something_else_changes_nothing():
    busy = spans((1, 2))
    busy.discard(Interval(2, 3))
    assert busy == spans((1, 2))


def test_discard_removes_every_interval_it_covers():
    busy = spans((1, 2), (3, 4), (5, 6), (7, 8))
    busy.discard(Interval(0, 7))
    assert busy == spans((7, 8))


def test_discard_across_neighbours_trims_and_removes():
    busy = spans((1, 4), (5, 6), (7, 8), (9, 12))
    busy.discard(Interval(3, 10))
    assert busy == spans((1, 3), (10, 12))


def test_subtracting_a_set_from_itself_leaves_nothing():
    busy = spans((1, 2), (3, 4), (5, 6))
    assert not busy - busy
    assert not busy - IntervalSet([busy.span])


def test_union_and_intersection():
    left, right = spans((1, 4), (6, 9)), spans((3, 7))
    assert left | right == spans((1, 9))
    assert left & right == spans((3, 4), (6, 7))


def test_overlapping():
    busy = spans((1, 2), (3, 5), (6, 8), (9, 10))
    assert busy.overlapping(Interval(4, 7)) == [Interval(3, 5), Interval(6, 8)]
    assert busy.overlapping(Interval(5, 6)) == []


def test_covers():
    busy = spans((1, 4), (6, 9))
    assert busy.covers(Interval(2, 4))
    assert not busy.covers(Interval(2, 7))


def test_gaps():
    busy = spans((9, 10), (12, 14))
    assert busy.gaps() == spans((10, 12))
    assert busy.gaps(Interval(8, 18)) == spans((8, 9), (10, 12), (14, 18))


def test_total_of_dates():
    holidays = IntervalSet([Interval(date(2024, 1, 1), date(2024, 1, 3)), Interval(date(2024, 5, 1), date(2024, 5, 2))])
    assert holidays.total(timedelta()) == timedelta(days=3)
