import pytest

from calx import EvalError, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 % 4 - 1", 2),
        ("2 ^ 3 ^ 2", 512),
        ("1 < 2 and 2 < 3", True),
        ("not 1 == 2", True),
        ("'a' == 'a'", True),
        ("max(1, 5, 3)", 5),
        ("round(2.345, 1)", 2.3),
        ("sum()", 0),
        ("average(1, 2, 6)", 3),
        ("upper('abc')", "ABC"),
    ],
    ids=lambda value: value.replace(" ", "") if isinstance(value, str) else str(value),
)
def test_values(text, value):
    assert evaluate(text) == value


def test_names():
    assert evaluate("price * (1 + vat / 100)", {"price": 10, "vat": 20}) == pytest.approx(12)


def test_and_or_stop_early():
    assert evaluate("false and 1 / 0") is False
    assert evaluate("1 or 1 / 0") == 1


def test_if_evaluates_one_branch():
    assert evaluate("if(n == 0, 0, 1 / n)", {"n": 0}) == 0


@pytest.mark.parametrize(("text", "value"), [("0<5<3", False), ("3>2>1", True), ("1==1!=2", True)])
def test_chains(text, value):
    assert evaluate(text) is value


@pytest.mark.parametrize(
    ("text", "value"), [("-2^2", -4), ("(-2)^2", 4), ("2^-1", 0.5), ("-2^-2", -0.25), ("10-2^2", 6)]
)
def test_sign_and_power(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("1 + x", "unknown name 'x'", 5),
        ("nope(1)", "unknown function 'nope'", 1),
        ("1 / 0", "division by zero", 3),
        ("1 + 'a'", "unsupported operand", 3),
        ("2 ^ 99999", "too large", 3),
        ("sqrt(0 - 1)", "math domain error", 1),
    ],
    ids=["name", "function", "zero", "types", "exponent", "domain"],
)
def test_errors_point_at_the_place(text, message, column):
    with pytest.raises(EvalError, match=message) as caught:
        evaluate(text)
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max()", "max takes at least 1 argument, not 0"),
        ("sqrt()", "sqrt takes 1 argument, not 0"),
        ("if(true, 1)", "if takes 3 arguments, not 2"),
        ("log()", "log takes 1 to 2 arguments, not 0"),
    ],
    ids=["max", "sqrt", "if", "log"],
)
def test_too_few_arguments(text, message):
    with pytest.raises(EvalError, match=message):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqrt(1, 2)", "sqrt takes 1 argument, not 2"),
        ("if(true, 1, 2, 3)", "if takes 3 arguments, not 4"),
        ("round(1, 2, 3)", "round takes 1 to 2 arguments, not 3"),
    ],
    ids=["sqrt", "if", "round"],
)
def test_too_many_arguments(text, message):
    with pytest.raises(EvalError, match=message):
        evaluate(text)
