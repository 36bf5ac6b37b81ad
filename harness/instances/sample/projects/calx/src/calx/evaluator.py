"""A tree to its value."""

import operator

from .errors import EvalError
from .functions import FUNCTIONS, check_arity
from .nodes import Binary, Call, Compare, Literal, Name, Unary

_ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "^": operator.pow,
}
_COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
MAX_EXPONENT = 10_000


def evaluate_tree(tree, names, text=""):
    """The value of `tree`; `text` is the formula it came from, for error messages."""
    return _Evaluator(names, text).value(tree)


class _Evaluator:
    def __init__(self, names, text):
        self._names = names
        self._text = text

    def value(self, node):
        method = {
            Literal: self._literal,
            Name: self._name,
            Unary: self._unary,
            Binary: self._binary,
            Compare: self._compare,
            Call: self._call,
        }[type(node)]
        return method(node)

    def _literal(self, node):
        return node.value

    def _name(self, node):
        if node.name not in self._names:
            self._fail(f"unknown name {node.name!r}", node)
        return self._names[node.name]

    def _unary(self, node):
        operand = self.value(node.operand)
        if node.operator == "not":
            return not operand
        return self._guard(node, operator.neg, operand)

    def _binary(self, node):
        left = self.value(node.left)
        if node.operator == "and":
            return self.value(node.right) if left else left
        if node.operator == "or":
            return left if left else self.value(node.right)
        right = self.value(node.right)
        if node.operator == "^" and isinstance(right, (int, float)) and abs(right) > MAX_EXPONENT:
            self._fail("the exponent is too large", node)
        return self._guard(node, _ARITHMETIC[node.operator], left, right)

    def _compare(self, node):
        left = self.value(node.first)
        for name, operand in zip(node.operators, node.rest):
            right = self.value(operand)
            if not self._guard(node, _COMPARISONS[name], left, right):
                return False
            left = right
        return True

    def _call(self, node):
        if node.function not in FUNCTIONS:
            self._fail(f"unknown function {node.function!r}", node)
        wrong = check_arity(node.function, len(node.arguments))
        if wrong:
            self._fail(wrong, node)
        if node.function == "if":  # only the branch that is taken has to have a value
            condition, yes, no = node.arguments
            return self.value(yes if self.value(condition) else no)
        arguments = [self.value(argument) for argument in node.arguments]
        return self._guard(node, FUNCTIONS[node.function][0], *arguments)

    def _guard(self, node, function, *arguments):
        """`function(*arguments)`, Python's complaints turned into ours."""
        try:
            return function(*arguments)
        except ZeroDivisionError:
            self._fail("division by zero", node)
        except (TypeError, ValueError, OverflowError) as error:
            self._fail(str(error), node)

    def _fail(self, message, node):
        raise EvalError(message, self._text, node.offset) from None
