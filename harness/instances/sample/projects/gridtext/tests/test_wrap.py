import pytest

from gridtext import cell_width, wrap


def test_breaks_at_spaces():
    assert wrap("the quick brown fox", 9) == ["the quick", "brown fox"]


def test_keeps_line_breaks():
    assert wrap("a b\nc", 10) == ["a b", "c"]


def test_empty_text_is_one_line():
    assert wrap("", 5) == [""]


def test_breaks_long_words():
    assert wrap("a abcdefgh", 3) == ["a", "abc", "def", "gh"]


def test_wide_characters():
    lines = wrap("日本語のテキスト", 5)
    assert lines == ["日本", "語の", "テキ", "スト"]
    assert all(cell_width(line) <= 5 for line in lines)


def test_width_must_be_positive():
    with pytest.raises(ValueError, match="cannot wrap"):
        wrap("a", 0)
