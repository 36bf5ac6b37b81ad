import pytest

from calx import SyntaxProblem
from calx.lexer import tokenize


def kinds(text):
    return [(token.kind, token.text) for token in tokenize(text)]


def test_tokens():
    assert kinds("a+1.5e3 <= 'x'") == [
        ("name", "a"),
        ("operator", "+"),
        ("number", "1.5e3"),
        ("operator", "<="),
        ("string", "'x'"),
        ("end", ""),
    ]


def test_keywords():
    assert kinds("not order")[:2] == [("keyword", "not"), ("name", "order")]


def test_comments_fall_out():
    assert kinds("1 # one\n+ 2")[:3] == [("number", "1"), ("operator", "+"), ("number", "2")]


def test_offsets():
    assert [token.offset for token in tokenize("ab + 12")] == [0, 3, 5, 7]


@pytest.mark.parametrize(("text", "offset"), [("1 $ 2", 2), ("'open", 0)], ids=["character", "string"])
def test_errors(text, offset):
    with pytest.raises(SyntaxProblem) as caught:
        tokenize(text)
    assert caught.value.offset == offset
