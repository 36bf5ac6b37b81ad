import pytest

from tidyconf import ParseError
from tidyconf.parser import parse, unquote


def test_sections_and_globals():
    assert parse("debug = yes\n[server]\nport = 80\n") == {"": {"debug": "yes"}, "server": {"port": "80"}}


def test_section_may_be_continued_later():
    parsed = parse("[a]\nx = 1\n[b]\ny = 2\n[a]\nz = 3\n")
    assert parsed["a"] == {"x": "1", "z": "3"}


def test_quoted_value_keeps_spaces_and_comment_characters():
    assert parse('greeting = "  hello # world "\n')[""]["greeting"] == "  hello # world "


def test_escapes_in_quotes():
    assert unquote(r'"a\tb\"c"', 1) == 'a\tb"c'


def test_escaped_quote_with_comment_character_in_value():
    text = r'''pattern = "\"#[0-9]+\" # issue"''' + "\n"
    assert parse(text)[""]["pattern"] == '"#[0-9]+" # issue'


def test_value_with_equals_sign():
    assert parse("query = a=1&b=2\n")[""]["query"] == "a=1&b=2"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nnonsense\n", 2), ("a b = 1\n", 1), ("x = 1\nx = 2\n", 2), ('x = "open\n', 1), ('x = "a" b\n', 1)],
    ids=["no_separator", "bad_key", "twice", "unclosed", "after_quote"],
)
def test_errors_name_the_line(text, line):
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert caught.value.line == line
