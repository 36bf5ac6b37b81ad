"""Text to tokens."""

import re
from dataclasses import dataclass

from .errors import SyntaxProblem

KEYWORDS = {"and", "or", "not", "true", "false"}

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"
    r"|(?P<string>'[^'\n]*')"
    r"|(?P<operator><=|>=|==|!=|[-+*/%^<>(),])"
    r"|(?P<space>\s+|\#[^\n]*)"
)


@dataclass(frozen=True)
class Token:
    """kind: number, name, string, operator, keyword or end; offset: of its first character in the text."""

    kind: str
    text: str
    offset: int


def tokenize(text):
    """The tokens of `text`, closed by one of kind "end". White space and comments (# to the line's end) fall out."""
    tokens = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if not match:
            what = "the string is not closed" if text[offset] == "'" else f"unexpected character {text[offset]!r}"
            raise SyntaxProblem(what, text, offset)
        kind = match.lastgroup
        if kind == "name" and match.group() in KEYWORDS:
            kind = "keyword"
        if kind != "space":
            tokens.append(Token(kind, match.group(), offset))
        offset = match.end()
    tokens.append(Token("end", "", len(text)))
    return tokens
