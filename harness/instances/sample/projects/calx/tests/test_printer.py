import pytest

from calx import parse, to_text


@pytest.mark.parametrize(
    "text",
    [
        "a + b * c",
        "(a + b) * c",
        "a - (b - c)",
        "a - b - c",
        "a ^ b ^ c",
        "(a ^ b) ^ c",
        "not (a and b)",
        "not a and b",
        "a < b <= c",
        "(a < b) == c",
        "max(a, b + 1, 'x')",
        "-a * b",
        "a * -b",
        "true or 1.5 > x",
    ],
    ids=lambda text: text.replace(" ", ""),
)
def test_text_with_the_fewest_parentheses_is_kept(text):
    assert to_text(parse(text)) == text


def test_needless_parentheses_go():
    assert to_text(parse("((a) + (b * c))")) == "a + b * c"


@pytest.mark.parametrize(
    "text", ["-a ^ b", "(-a) ^ b", "a ^ -b", "a ^ -b ^ c", "(a ^ -b) ^ c", "(a ^ b) ^ -c", "-(-a) ^ b", "2 ^ -1 * a"],
    ids=lambda text: text.replace(" ", ""),
)
def test_sign_and_power(text):
    tree = parse(text)
    assert parse(to_text(tree)) == tree


def test_sign_and_power_take_no_needless_parentheses():
    assert to_text(parse("-(a ^ b)")) == "-a ^ b"
    assert to_text(parse("a ^ (-b)")) == "a ^ -b"
    assert to_text(parse("(-a) ^ b")) == "(-a) ^ b"
