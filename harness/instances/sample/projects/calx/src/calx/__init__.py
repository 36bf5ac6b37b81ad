"""A small language of formulas: parse, evaluate, print."""

from .errors import CalxError, EvalError, SyntaxProblem
from .evaluator import evaluate_tree
from .parser import parse
from .printer import to_text

__all__ = ["CalxError", "EvalError", "SyntaxProblem", "evaluate", "parse", "to_text"]
__version__ = "3.2.0"


def evaluate(text, names=None):
    """The value of a formula, with `names` for the names in it."""
    return evaluate_tree(parse(text), names or {}, text)
