import pytest

from gridtext import fit_columns


def test_nothing_to_do():
    assert fit_columns([5, 10], 20) == [5, 10]


def test_only_the_widest_shrinks():
    assert fit_columns([4, 30], 20) == [4, 16]


def test_equal_columns_shrink_alike():
    assert fit_columns([20, 20], 20) == [10, 10]


def test_two_wide_columns_share_the_loss():
    assert fit_columns([5, 40, 60], 45) == [5, 20, 20]


def test_uses_all_of_the_width():
    assert fit_columns([20, 20, 20], 20) == [7, 7, 6]


@pytest.mark.parametrize("available", range(12, 60))
def test_never_wider_than_available(available):
    fitted = fit_columns([4, 9, 33, 17], available)
    assert sum(fitted) <= available
    assert all(0 < width <= natural for width, natural in zip(fitted, [4, 9, 33, 17]))


def test_narrow_columns_keep_their_width():
    assert fit_columns([1, 2, 50], 20) == [1, 2, 17]


def test_columns_stop_at_the_minimum():
    assert fit_columns([10, 10, 10], 6) == [3, 3, 3]


def test_the_minimum_does_not_widen_a_column():
    assert fit_columns([2, 40], 4, minimum=5) == [2, 5]
