"""Many small functions that carry their own specification: the raw material of the training tasks.

A family is a function of a random generator that draws the choices of one function: what is compared with what, which
operation, which constants. Every line with a choice in it repeats it in a comment. The comments are the specification:
a reader who sees a function with one choice changed can tell which line is wrong, and what it should be. That is as
much understanding as a policy of a million parameters can be taught in minutes.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

VERBS = (
    "get", "make", "find", "take", "pick", "read", "fix", "test", "plan", "rate", "move", "turn", "hold", "keep",
    "sort", "pack", "mark", "draw", "cut", "mix",
)  # fmt: skip
NOUNS = (
    "apple", "bird", "card", "desk", "edge", "farm", "gate", "hill", "iron", "jazz", "king", "lamp", "moon", "nest",
    "oven", "pond", "queen", "road", "seed", "tent", "unit", "vote", "wall", "yard", "zone", "boat", "cake", "door",
    "fish", "goat", "hand", "ink", "jar", "kite", "leaf", "milk", "nail", "pen", "rope", "sand", "tree", "wave",
)  # fmt: skip

COMPARISONS = (">", "<", ">=", "<=", "==", "!=")
PAIRS = ("{a} + {b}", "{a} - {b}", "max({a}, {b})", "min({a}, {b})")


@dataclass(frozen=True)
class Function:
    """One correct function. `source` is in the spelling of `ast.unparse`, one statement a line, plus the comments."""

    name: str
    source: str
    parameters: tuple[str, ...]
    family: str

    @property
    def skeleton(self) -> str:
        """What is left when names, constants and comments are taken out: the identity that splits are made by."""
        return skeleton(self.source)


def draw(random: Random) -> Function:
    """One function of a random family under a random name."""
    family = random.choice(FAMILIES)
    name = f"{random.choice(VERBS)}_{random.choice(NOUNS)}"
    parameters, body = family(random)
    lines = [f"def {name}({', '.join(parameters)}):", *("    " + line for line in body)]
    code = ast.unparse(ast.parse("\n".join(lines)))
    return Function(name, commented(code, ["", *map(specification, body)]), parameters, family.__name__)


def specification(line: str) -> str:
    """What a line's comment says: its statement without keyword and colon; nothing where nothing was chosen."""
    return "" if line.strip() in PLAIN else expression(line)


def expression(line: str) -> str:
    """A line's code without indent, comment, keyword and colon."""
    code = line.partition("  # ")[0].strip().removesuffix(":")
    return code.removeprefix("if ").removeprefix("return ").removeprefix("for i in ")


def commented(code: str, comments: Sequence[str]) -> str:
    """The code with each line's comment behind it; a comment may be empty."""
    lines = zip(code.splitlines(), comments, strict=True)
    return "\n".join(f"{line}  # {words}" if words else line for line, words in lines)


def comments_of(source: str) -> list[str]:
    return [line.partition("  # ")[2] for line in source.splitlines()]


def arguments(parameters: tuple[str, ...], random: Random) -> tuple[object, ...]:
    """Arguments for a call, small enough that boundaries are met often: `items` is a list, everything else a number."""
    small = random.randint(-2, 12)

    def draw_one(name: str) -> object:
        if name == "items":
            return [random.randint(0, 9) for _ in range(random.randint(1, 5))]
        if name == "n":
            return random.randint(0, 7)
        return small if random.random() < 0.3 else random.randint(-2, 12)

    return tuple(draw_one(name) for name in parameters)


def skeleton(source: str) -> str:
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = "f"
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}") if node.id not in {"max", "min", "len"} else node.id
        elif isinstance(node, ast.Constant):
            node.value = 0
    return ast.dump(tree)


# --- families: parameters, and the lines of the body ------------------------------------------------------------------

Drawn = tuple[tuple[str, ...], list[str]]
LOOP = "for x in items:"
PLAIN = {LOOP, "r = []", "else:", "continue", "return r"}


def _number(random: Random) -> str:
    return str(random.randint(1, 9))


def _pair(random: Random, a: str, b: str) -> str:
    """Something made from a and b."""
    return random.choice(PAIRS).format(a=a, b=b)


def _of_item(random: Random) -> str:
    """Something made from the loop variable x."""
    return "x" if random.random() < 0.3 else _pair(random, "x", _number(random))


def _test(random: Random, left: str, right: str) -> str:
    return f"{left} {random.choice(COMPARISONS)} {right}"


def _sign(random: Random) -> str:
    return random.choice("+-")


def choose(random: Random) -> Drawn:
    test = _test(random, "a", random.choice(["b", _number(random)]))
    then, other = _pair(random, "a", "b"), _pair(random, "b", _number(random))
    return ("a", "b"), [f"if {test}:", f"    return {then}", f"return {other}"]


def fold(random: Random) -> Drawn:
    step = f"        r {_sign(random)}= {_of_item(random)}"
    return ("items", "k"), [f"r = {_number(random)}", LOOP, f"    if {_test(random, 'x', 'k')}:", step, "return r"]


def collect(random: Random) -> Drawn:
    head = ["r = []", LOOP, f"    if {_test(random, 'x', _number(random))}:"]
    item, other = _of_item(random), _of_item(random)
    if random.random() < 0.5:
        return ("items",), [*head, "        continue", f"    r.append({item})", "return r"]
    return ("items",), [*head, f"        r.append({item})", "    else:", f"        r.append({other})", "return r"]


def search(random: Random) -> Drawn:
    test = _test(random, _of_item(random), "k")
    found = _pair(random, "x", "k") if random.random() < 0.5 else _of_item(random)
    return ("items", "k"), [LOOP, f"    if {test}:", f"        return {found}", f"return {_number(random)}"]


def adjust(random: Random) -> Drawn:
    last = _pair(random, "r", "a") if random.random() < 0.5 else "r"
    head = [f"r = {_pair(random, 'a', 'b')}", f"if {_test(random, 'r', _number(random))}:"]
    return ("a", "b"), [*head, f"    r = {_pair(random, 'r', _number(random))}", f"return {last}"]


def both(random: Random) -> Drawn:
    word = random.choice(["and", "or"])
    test = f"{_test(random, 'a', _number(random))} {word} {_test(random, 'b', _number(random))}"
    return ("a", "b"), [f"if {test}:", f"    return {_pair(random, 'a', 'b')}", f"return {_number(random)}"]


def count_up(random: Random) -> Drawn:
    loop = f"for i in range({random.randint(0, 3)}, {random.choice(['n + 1', 'n'])}):"
    step = f"    r {_sign(random)}= {_pair(random, 'i', random.choice(['k', _number(random)]))}"
    return ("n", "k"), [f"r = {_number(random)}", loop, step, "return r"]


def clamp(random: Random) -> Drawn:
    base = _pair(random, "a", random.choice(["b", _number(random)]))
    bounds = [f"r = max(r, {random.randint(0, 4)})", f"r = min(r, {random.randint(5, 9)})"]
    return ("a", "b"), [f"r = {base}", *bounds, f"return {_pair(random, 'r', 'b')}"]


FAMILIES: tuple[Callable[[Random], Drawn], ...] = (choose, fold, collect, search, adjust, both, count_up, clamp)
