"""Tokens to a tree, by precedence climbing."""

from .errors import SyntaxProblem
from .lexer import tokenize
from .nodes import Binary, Call, Compare, Literal, Name, Unary

# How tightly operators bind; the printer goes by the same table.
OR, AND, NOT, COMPARISON, SUM, PRODUCT, SIGN, POWER, ATOM = range(1, 10)
BINARY = {"or": OR, "and": AND, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "%": PRODUCT, "^": POWER}
PREFIX = {"not": NOT, "-": SIGN}
COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}
RIGHT_ASSOCIATIVE = {"^"}


def parse(text):
    """The tree of a formula. Raises SyntaxProblem pointing at the first token that does not fit."""
    return _Parser(text).formula()


class _Parser:
    def __init__(self, text):
        self._text = text
        self._tokens = tokenize(text)
        self._position = 0

    @property
    def _token(self):
        return self._tokens[self._position]

    def formula(self):
        tree = self._expression(OR)
        if self._token.kind != "end":
            self._fail(f"unexpected {self._token.text!r}")
        return tree

    def _expression(self, minimum):
        """An expression of operators that bind at least as tightly as `minimum`."""
        left = self._prefix(minimum)
        while True:
            token = self._token
            if token.kind not in ("operator", "keyword"):
                return left
            if token.text in COMPARISONS and minimum <= COMPARISON:
                left = self._comparison(left)
                continue
            binding = BINARY.get(token.text)
            if binding is None or binding < minimum:
                return left
            self._position += 1
            right = self._expression(binding if token.text in RIGHT_ASSOCIATIVE else binding + 1)
            left = Binary(token.text, left, right, offset=token.offset)

    def _prefix(self, minimum):
        """A prefix operator with its operand, or an atom.

        After a tighter operator a sign is still welcome (`2 ^ -1`): its operand then binds as a sign's does.
        """
        token = self._token
        if token.kind in ("operator", "keyword") and token.text in PREFIX:
            binding = PREFIX[token.text]
            if binding < minimum and token.text == "not":
                self._fail("'not' needs parentheses here")
            self._position += 1
            return Unary(token.text, self._expression(binding), offset=token.offset)
        return self._atom()

    def _comparison(self, first):
        offset = self._token.offset
        operators, rest = [], []
        while self._token.text in COMPARISONS and self._token.kind == "operator":
            operators.append(self._token.text)
            self._position += 1
            rest.append(self._expression(SUM))
        return Compare(first, tuple(operators), tuple(rest), offset=offset)

    def _atom(self):
        token = self._token
        self._position += 1
        if token.kind == "number":
            return Literal(_number(token.text), offset=token.offset)
        if token.kind == "string":
            return Literal(token.text[1:-1], offset=token.offset)
        if token.kind == "keyword" and token.text in ("true", "false"):
            return Literal(token.text == "true", offset=token.offset)
        if token.kind == "name":
            if self._token.text == "(" and self._token.kind == "operator":
                return Call(token.text, self._arguments(), offset=token.offset)
            return Name(token.text, offset=token.offset)
        if token.text == "(" and token.kind == "operator":
            inner = self._expression(OR)
            self._expect(")", token)
            return inner
        self._position -= 1
        self._fail("the formula ends too early" if token.kind == "end" else f"unexpected {token.text!r}")

    def _arguments(self):
        opening = self._token
        self._position += 1
        arguments = []
        if self._token.text != ")" or self._token.kind != "operator":
            arguments.append(self._expression(OR))
            while self._token.text == "," and self._token.kind == "operator":
                self._position += 1
                arguments.append(self._expression(OR))
        self._expect(")", opening)
        return tuple(arguments)

    def _expect(self, text, opening):
        if self._token.kind != "operator" or self._token.text != text:
            if self._token.kind == "end":
                raise SyntaxProblem(f"{opening.text!r} is not closed", self._text, opening.offset)
            self._fail(f"expected {text!r}, found {self._token.text!r}")
        self._position += 1

    def _fail(self, message):
        raise SyntaxProblem(message, self._text, self._token.offset)


def _number(text):
    return int(text) if text.isdigit() else float(text)
