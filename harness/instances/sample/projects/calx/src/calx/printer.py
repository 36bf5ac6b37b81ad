"""A tree to text that parses to the same tree, with no more parentheses than it takes."""

from .nodes import Binary, Call, Compare, Literal, Name, Unary
from .parser import ATOM, BINARY, COMPARISON, PREFIX, RIGHT_ASSOCIATIVE, SUM


def to_text(tree):
    """The formula of a tree."""
    if isinstance(tree, Literal):
        return _literal(tree.value)
    if isinstance(tree, Name):
        return tree.name
    if isinstance(tree, Call):
        return f"{tree.function}({', '.join(map(to_text, tree.arguments))})"
    if isinstance(tree, Unary):
        space = " " if tree.operator == "not" else ""
        return f"{tree.operator}{space}{_at_least(tree.operand, PREFIX[tree.operator])}"
    if isinstance(tree, Compare):
        parts = [_at_least(tree.first, SUM)]
        for operator, operand in zip(tree.operators, tree.rest):
            parts += [operator, _at_least(operand, SUM)]
        return " ".join(parts)
    binding = BINARY[tree.operator]
    right_associative = tree.operator in RIGHT_ASSOCIATIVE
    left = _at_least(tree.left, binding + right_associative)
    if right_associative and isinstance(tree.right, Unary) and tree.right.operator == "-":
        right = to_text(tree.right)  # `2 ^ -1`: a sign needs no parentheses to the right of a power
    else:
        right = _at_least(tree.right, binding + (not right_associative))
    return f"{left} {tree.operator} {right}"


def _at_least(node, binding):
    """The text of `node`, in parentheses if it binds less tightly than `binding`."""
    text = to_text(node)
    return text if _binding(node) >= binding else f"({text})"


def _binding(node):
    if isinstance(node, Unary):
        return PREFIX[node.operator]
    if isinstance(node, Compare):
        return COMPARISON
    return BINARY[node.operator] if isinstance(node, Binary) else ATOM


def _literal(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}'" if isinstance(value, str) else repr(value)
