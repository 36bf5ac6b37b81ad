import pytest

from calx import EvalError, SyntaxProblem, evaluate, parse
from calx.errors import line_and_column


@pytest.mark.parametrize(("offset", "place"), [(0, (1, 1)), (2, (1, 3))])
def test_place_on_the_first_line(offset, place):
    assert line_and_column("a + b", offset) == place


@pytest.mark.parametrize(
    ("offset", "place"), [(4, (1, 5)), (5, (2, 1)), (7, (2, 3)), (9, (3, 1)), (10, (4, 1)), (12, (4, 3))]
)
def test_place_on_later_lines(offset, place):
    #       0    5   9 10
    text = "1 +\t\n2 +\n\n3 $"
    assert line_and_column(text, offset) == place


def test_syntax_error_on_a_later_line():
    with pytest.raises(SyntaxProblem, match=r"unexpected '\)' \(line 3, column 5\)") as caught:
        parse("(1 +\n 2)\n+ 3 )")
    assert (caught.value.line, caught.value.column) == (3, 5)


def test_evaluation_error_on_a_later_line():
    with pytest.raises(EvalError, match=r"line 2, column 3"):
        evaluate("1 +\n  rate")


def test_show_points_at_the_place():
    with pytest.raises(EvalError) as caught:
        evaluate("1 + rate")
    assert caught.value.show() == "1 + rate\n    ^ unknown name 'rate'"


def test_show_shows_the_line_in_question():
    with pytest.raises(EvalError) as caught:
        evaluate("total *\n(1 + rate)", {"total": 1})
    assert caught.value.show() == "(1 + rate)\n     ^ unknown name 'rate'"


def test_show_keeps_tabs():
    with pytest.raises(EvalError) as caught:
        evaluate("if(true,\n\trate, 0)")
    assert caught.value.show() == "\trate, 0)\n\t^ unknown name 'rate'"


def test_show_after_the_last_line():
    with pytest.raises(SyntaxProblem) as caught:
        parse("1 +\n")
    assert caught.value.show() == "\n^ the formula ends too early"
