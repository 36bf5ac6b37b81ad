"""The tree of a formula. `offset` is the place in the text; it does not count in comparisons."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    offset: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True)
class Literal(Node):
    value: object


@dataclass(frozen=True)
class Name(Node):
    name: str


@dataclass(frozen=True)
class Unary(Node):
    """operator: - or not."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary(Node):
    """operator: arithmetic, and, or. offset is that of the operator."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Compare(Node):
    """A chain: first operators[0] rest[0] operators[1] rest[1] ..."""

    first: Node
    operators: tuple
    rest: tuple


@dataclass(frozen=True)
class Call(Node):
    function: str
    arguments: tuple
