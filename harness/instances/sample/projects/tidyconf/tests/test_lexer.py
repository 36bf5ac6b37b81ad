import pytest

from tidyconf.lexer import logical_lines, strip_comment


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a = 1", "a = 1"),
        ("a = 1  # one", "a = 1"),
        ("a = 1 ; one", "a = 1"),
        ("# all of it", ""),
        ("url = http://host/#anchor", "url = http://host/#anchor"),
        ('a = "x # y"', 'a = "x # y"'),
        ("a = 'x ; y' # z", "a = 'x ; y'"),
        ("motto = it's fine # really", "motto = it's fine"),
    ],
    ids=["plain", "hash", "semicolon", "whole_line", "anchor", "double_quoted", "single_quoted", "apostrophe"],
)
def test_strip_comment(line, expected):
    assert strip_comment(line) == expected


def test_strip_comment_escaped_quote():
    line = r'pattern = "say \"hi\" # loudly"  # how to greet'
    assert strip_comment(line) == r'pattern = "say \"hi\" # loudly"'


def test_strip_comment_escaped_backslash_before_closing_quote():
    assert strip_comment(r'dir = "C:\\"  # a drive') == r'dir = "C:\\"'


def test_continuation_lines_are_joined():
    lines = list(logical_lines("a = 1\n  2\n  3\nb = 4\n"))
    assert [(line.number, line.text) for line in lines] == [(1, "a = 1\n2\n3"), (4, "b = 4")]


def test_comment_line_does_not_end_a_value():
    (line,) = logical_lines("hosts = one\n    # the spare\n    two\n")
    assert line.text == "hosts = one\ntwo"


def test_blank_line_ends_a_value():
    lines = list(logical_lines("a = 1\n\n  b = 2\n"))
    assert [line.text for line in lines] == ["a = 1", "b = 2"]
