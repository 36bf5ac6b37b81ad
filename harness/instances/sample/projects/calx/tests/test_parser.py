import pytest

from calx import SyntaxProblem, parse
from calx.nodes import Binary, Call, Compare, Literal, Name, Unary

A, B, C = Name("a"), Name("b"), Name("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        ("1", Literal(1)),
        ("true", Literal(True)),
        ("a + b * c", Binary("+", A, Binary("*", B, C))),
        ("(a + b) * c", Binary("*", Binary("+", A, B), C)),
        ("a - b - c", Binary("-", Binary("-", A, B), C)),
        ("a or b and c", Binary("or", A, Binary("and", B, C))),
        ("not a and b", Binary("and", Unary("not", A), B)),
        ("max(a, b)", Call("max", (A, B))),
        ("sum()", Call("sum", ())),
    ],
    ids=lambda value: value.replace(" ", "") if isinstance(value, str) else "",
)
def test_trees(text, tree):
    assert parse(text) == tree


def test_power_is_right_associative():
    assert parse("a ^ b ^ c") == Binary("^", A, Binary("^", B, C))


def test_sign_in_a_product():
    assert parse("a * -b") == Binary("*", A, Unary("-", B))


def test_comparison_below_sum():
    assert parse("a + b < c") == Compare(Binary("+", A, B), ("<",), (C,))


def test_comparisons_chain():
    assert parse("a < b <= c") == Compare(A, ("<", "<="), (B, C))


def test_sign_binds_more_loosely_than_power():
    assert parse("-a ^ b") == Unary("-", Binary("^", A, B))
    assert parse("a * -b ^ c") == Binary("*", A, Unary("-", Binary("^", B, C)))


def test_sign_of_an_exponent():
    assert parse("a ^ -b") == Binary("^", A, Unary("-", B))
    assert parse("a ^ -b ^ c") == Binary("^", A, Unary("-", Binary("^", B, C)))


def test_exponent_with_sign_ends_before_the_next_operator():
    assert parse("a ^ -b * c") == Binary("*", Binary("^", A, Unary("-", B)), C)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("1 +", "ends too early", 4),
        ("1 2", "unexpected '2'", 3),
        ("(1 + 2", "not closed", 1),
        ("max(1, 2", "not closed", 4),
        ("f(1 2)", "expected", 5),
        ("1 * not a", "parentheses", 5),
        ("", "ends too early", 1),
    ],
    ids=["early", "two_numbers", "parenthesis", "call", "comma", "not", "empty"],
)
def test_errors_point_at_the_place(text, message, column):
    with pytest.raises(SyntaxProblem, match=message) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (1, column)
