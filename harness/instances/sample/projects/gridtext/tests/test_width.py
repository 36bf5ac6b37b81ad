import pytest

from gridtext import cell_width, pad, strip_ansi, truncate

RED, RESET = "\x1b[31m", "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), (f"{RED}red{RESET}", 3)],
    ids=["empty", "ascii", "wide", "combining", "colour"],
)
def test_cell_width(text, cells):
    assert cell_width(text) == cells


def test_strip_ansi():
    assert strip_ansi(f"a {RED}b{RESET}") == "a b"


@pytest.mark.parametrize(("align", "expected"), [("l", "ab   "), ("r", "   ab"), ("c", " ab  ")], ids=["left", "right", "centre"])
def test_pad(align, expected):
    assert pad("ab", 5, align) == expected


def test_pad_wide_characters():
    assert pad("日本", 6) == "日本  "


def test_pad_never_cuts():
    assert pad("abcdef", 3) == "abcdef"


def test_truncate_short_text_is_untouched():
    assert truncate("abc", 3) == "abc"


def test_truncate():
    assert truncate("abcdef", 4) == "abc…"


def test_truncate_with_another_ellipsis():
    assert truncate("abcdefgh", 6, ellipsis="...") == "abc..."


def test_truncate_without_room_for_the_ellipsis():
    assert truncate("abcdef", 2, ellipsis="...") == ""


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("日本語テキスト", 7, "日本語…"), ("日本語テキスト", 6, "日本…"), ("ab日本語", 5, "ab日…"), ("ｆｕｌｌ", 4, "ｆ…")],
    ids=["even", "odd", "mixed", "fullwidth"],
)
def test_truncate_wide_characters(text, width, expected):
    shortened = truncate(text, width)
    assert shortened == expected
    assert cell_width(shortened) <= width


def test_truncate_keeps_combining_marks_with_their_letter():
    assert truncate("e\u0301e\u0301e\u0301e\u0301", 3) == "e\u0301e\u0301…"


def test_truncate_does_not_count_colour():
    assert truncate(f"{RED}red{RESET}", 3) == f"{RED}red{RESET}"
    assert truncate(f"{RED}abcdef{RESET}", 4) == f"{RED}abc…{RESET}"
