"""Many small functions, each with a sentence that says what it should do: the raw material of the training tasks.

A family is a function of a random generator that draws the choices of one function (what is compared with what, which
operation, which constants) and writes them down twice: as code and as the sentence of its docstring. The sentence
states every choice, so a reader who sees a function with one choice changed can tell which one is wrong.
"""

import ast
from collections.abc import Callable
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

# The sentence and the code of a comparison of x with y, of a number made from x, of a number made from x and y.
COMPARISONS = {
    "above": ">",
    "below": "<",
    "at least": ">=",
    "at most": "<=",
    "equal to": "==",
    "other than": "!=",
}
PAIRS = {
    "{a} plus {b}": "{a} + {b}",
    "{a} minus {b}": "{a} - {b}",
    "{a} times {b}": "{a} * {b}",
    "larger of {a} and {b}": "max({a}, {b})",
    "smaller of {a} and {b}": "min({a}, {b})",
}


@dataclass(frozen=True)
class Function:
    """One correct function. `source` is in the spelling of `ast.unparse`, one statement a line, docstring first."""

    name: str
    source: str
    parameters: tuple[str, ...]
    family: str

    @property
    def skeleton(self) -> str:
        """What is left when names, constants and docstring are taken out: the identity that splits are made by."""
        return skeleton(self.source)


def draw(random: Random) -> Function:
    """One function of a random family under a random name."""
    family = random.choice(FAMILIES)
    name = f"{random.choice(VERBS)}_{random.choice(NOUNS)}"
    parameters, sentence, body = family(random)
    lines = [f"def {name}({', '.join(parameters)}):", f'    """{sentence}."""', *("    " + line for line in body)]
    return Function(name, ast.unparse(ast.parse("\n".join(lines))), parameters, family.__name__)


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
            node.name, node.body = "f", node.body[1:]
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, f"v{len(names)}") if node.id not in {"max", "min", "len"} else node.id
        elif isinstance(node, ast.Constant):
            node.value = 0
    return ast.dump(tree)


# --- families: (parameters, sentence, body) ---------------------------------------------------------------------------

Drawn = tuple[tuple[str, ...], str, list[str]]


def _pick(random: Random, table: dict[str, str]) -> tuple[str, str]:
    return random.choice(list(table.items()))


def _number(random: Random) -> int:
    return random.randint(1, 9)


def _pair(random: Random, a: str, b: str) -> tuple[str, str]:
    words, code = _pick(random, PAIRS)
    return words.format(a=a, b=b), code.format(a=a, b=b)


def _of_item(random: Random) -> tuple[str, str]:
    """Something made of the loop variable x."""
    if random.random() < 0.3:
        return "x", "x"
    return _pair(random, "x", str(_number(random)))


def choose(random: Random) -> Drawn:
    compared, operator = _pick(random, COMPARISONS)
    (then, then_code), (other, other_code) = _pair(random, "a", "b"), _pair(random, "b", str(_number(random)))
    right = random.choice(["b", str(_number(random))])
    sentence = f"If a is {compared} {right}: {then}. Else: {other}"
    return ("a", "b"), sentence, [f"if a {operator} {right}:", f"    return {then_code}", f"return {other_code}"]


def fold(random: Random) -> Drawn:
    compared, operator = _pick(random, COMPARISONS)
    start, (item, item_code) = random.randint(0, 5), _of_item(random)
    adds = random.choice(["+", "-"])
    verb = {"+": "Add to", "-": "Take from"}[adds]
    sentence = f"{verb} {start}: {item} for each x {compared} k"
    body = [f"r = {start}", "for x in items:", f"    if x {operator} k:", f"        r {adds}= {item_code}", "return r"]
    return ("items", "k"), sentence, body


def collect(random: Random) -> Drawn:
    compared, operator = _pick(random, COMPARISONS)
    limit = _number(random)
    item, item_code = _of_item(random)
    if random.random() < 0.5:
        sentence = f"List of {item}, skip x {compared} {limit}"
        body = ["r = []", "for x in items:", f"    if x {operator} {limit}:", "        continue"]
        return ("items",), sentence, [*body, f"    r.append({item_code})", "return r"]
    other, other_code = _of_item(random)
    sentence = f"List of {item} if x is {compared} {limit}, else {other}"
    body = ["r = []", "for x in items:", f"    if x {operator} {limit}:", f"        r.append({item_code})", "    else:"]
    return ("items",), sentence, [*body, f"        r.append({other_code})", "return r"]


def search(random: Random) -> Drawn:
    compared, operator = _pick(random, COMPARISONS)
    (item, item_code), missing = _of_item(random), _number(random)
    (found, found_code) = _pair(random, "x", "k") if random.random() < 0.5 else _of_item(random)
    sentence = f"{found} for the first x where {item} is {compared} k. None such: {missing}"
    body = ["for x in items:", f"    if {item_code} {operator} k:", f"        return {found_code}", f"return {missing}"]
    return ("items", "k"), sentence, body


def adjust(random: Random) -> Drawn:
    compared, operator = _pick(random, COMPARISONS)
    (first, first_code), (then, then_code) = _pair(random, "a", "b"), _pair(random, "r", str(_number(random)))
    limit = _number(random)
    if random.random() < 0.5:
        last, last_code = _pair(random, "r", "a")
        sentence = f"r is {first}. If r is {compared} {limit}, r becomes {then}. Return {last}"
    else:
        last_code = "r"
        sentence = f"r is {first}. If r is {compared} {limit}, r becomes {then}. Return r"
    body = [f"r = {first_code}", f"if r {operator} {limit}:", f"    r = {then_code}", f"return {last_code}"]
    return ("a", "b"), sentence, body


def both(random: Random) -> Drawn:
    (one, one_code), (two, two_code) = _pick(random, COMPARISONS), _pick(random, COMPARISONS)
    word = random.choice(["and", "or"])
    (then, then_code), other = _pair(random, "a", "b"), _number(random)
    low, high = _number(random), _number(random)
    sentence = f"If a is {one} {low} {word} b is {two} {high}: {then}. Else: {other}"
    return (
        ("a", "b"),
        sentence,
        [f"if a {one_code} {low} {word} b {two_code} {high}:", f"    return {then_code}", f"return {other}"],
    )


def count_up(random: Random) -> Drawn:
    start, first = random.randint(0, 3), random.randint(0, 5)
    (term, term_code) = _pair(random, "i", random.choice(["k", str(_number(random))]))
    closed = random.random() < 0.5
    stop, words = ("n + 1", "up to n") if closed else ("n", "below n")
    adds = random.choice(["+", "-"])
    verb = {"+": "Add to", "-": "Take from"}[adds]
    sentence = f"{verb} {first}: {term} for each i from {start} {words}"
    body = [f"r = {first}", f"for i in range({start}, {stop}):", f"    r {adds}= {term_code}", "return r"]
    return ("n", "k"), sentence, body


def clamp(random: Random) -> Drawn:
    (base, base_code) = _pair(random, "a", random.choice(["b", str(_number(random))]))
    low, high = random.randint(0, 4), random.randint(5, 9)
    (then, then_code) = _pair(random, "r", "b")
    sentence = f"r is {base}, not below {low}, not above {high}. Return {then}"
    body = [f"r = {base_code}", f"r = max(r, {low})", f"r = min(r, {high})", f"return {then_code}"]
    return ("a", "b"), sentence, body


FAMILIES: tuple[Callable[[Random], Drawn], ...] = (choose, fold, collect, search, adjust, both, count_up, clamp)
