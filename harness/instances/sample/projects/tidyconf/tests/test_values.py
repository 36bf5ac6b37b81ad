import pytest

from tidyconf import loads
from tidyconf.errors import ValueFormatError
from tidyconf.values import to_bool, to_duration, to_int, to_list, to_size


@pytest.mark.parametrize(("text", "expected"), [("yes", True), ("ON", True), ("0", False), ("off", False)])
def test_bool(text, expected):
    assert to_bool("k", text) is expected


def test_bool_rejects_anything_else():
    with pytest.raises(ValueFormatError, match="k: expected yes or no"):
        to_bool("k", "maybe")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("42", 42), ("-7", -7), ("+7", 7), ("1_000", 1000), ("0x1F", 31), ("0b101", 5), ("0o17", 15)],
)
def test_int(text, expected):
    assert to_int("k", text) == expected


@pytest.mark.parametrize(("text", "expected"), [("08", 8), ("007", 7), ("-09", -9), ("00", 0), ("0_1", 1)])
def test_int_with_leading_zeros_is_decimal(text, expected):
    assert to_int("k", text) == expected


def test_padded_numbers_in_a_file():
    document = loads("[backup]\nhour = 08\nminute = 05\n")
    assert (document.get_int("backup.hour"), document.get_int("backup.minute")) == (8, 5)


@pytest.mark.parametrize("text", ["", "x", "1.5", "0x", "1 000", "1__0", "--1"], ids=lambda text: text.replace(" ", "_"))
def test_int_rejects(text):
    with pytest.raises(ValueFormatError):
        to_int("k", text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1d", 86400.0)]
)
def test_duration(text, seconds):
    assert to_duration("k", text) == pytest.approx(seconds)


def test_duration_rejects_unknown_units():
    with pytest.raises(ValueFormatError):
        to_duration("k", "3 fortnights")


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("10kB", 10_000), ("10KiB", 10_240), ("1.5M", 1_500_000)])
def test_size(text, size):
    assert to_size("k", text) == size


def test_list_of_lines_and_commas():
    assert to_list("k", "a, b\nc,,d") == ["a", "b", "c", "d"]


def test_list_with_quoted_comma():
    assert to_list("k", '"a, b", c') == ["a, b", "c"]
