"""Many small functions with comments that say what each line should do: the raw material of the training tasks.

A family is a function of a random generator that draws the choices of one function (what is compared with what, which
operation, which constants) and writes them down twice: as code and, line by line, as words. The words state every
choice, so a reader who sees a function with one choice changed can tell which one is wrong.
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

# Words and code of a comparison, and of a number made from two.
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
    lines = [f"def {name}({', '.join(parameters)}):", *("    " + line for line, _ in body)]
    code = ast.unparse(ast.parse("\n".join(lines)))
    return Function(name, commented(code, ["", *(words for _, words in body)]), parameters, family.__name__)


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


# --- families: parameters, and the lines of the body with what they should do -----------------------------------------

Drawn = tuple[tuple[str, ...], list[tuple[str, str]]]


def _number(random: Random) -> int:
    return random.randint(1, 9)


def _pick(random: Random, table: dict[str, str]) -> tuple[str, str]:
    return random.choice(list(table.items()))


def _pair(random: Random, a: str, b: str) -> tuple[str, str]:
    """Code and words of something made from a and b."""
    words, code = _pick(random, PAIRS)
    return code.format(a=a, b=b), words.format(a=a, b=b)


def _of_item(random: Random) -> tuple[str, str]:
    """Code and words of something made from the loop variable x."""
    return ("x", "x") if random.random() < 0.3 else _pair(random, "x", str(_number(random)))


def _condition(random: Random, left: str, right: str) -> tuple[str, str]:
    words, operator = _pick(random, COMPARISONS)
    return f"{left} {operator} {right}", f"{left} {words} {right}"


def _if(random: Random, left: str, right: str, indent: str = "") -> tuple[str, str]:
    code, words = _condition(random, left, right)
    return f"{indent}if {code}:", words


def _return(pair: tuple[str, str], indent: str = "") -> tuple[str, str]:
    return f"{indent}return {pair[0]}", pair[1]


def choose(random: Random) -> Drawn:
    first = _if(random, "a", random.choice(["b", str(_number(random))]))
    then, other = _pair(random, "a", "b"), _pair(random, "b", str(_number(random)))
    return ("a", "b"), [first, _return(then, "    "), _return(other)]


def fold(random: Random) -> Drawn:
    start, (item, words) = _number(random), _of_item(random)
    verb, sign = random.choice([("add", "+"), ("take", "-")])
    body = [(f"r = {start}", f"{start}"), ("for x in items:", ""), _if(random, "x", "k", "    ")]
    return ("items", "k"), [*body, (f"        r {sign}= {item}", f"{verb} {words}"), ("return r", "")]


def collect(random: Random) -> Drawn:
    head = [("r = []", ""), ("for x in items:", ""), _if(random, "x", str(_number(random)), "    ")]
    item, words = _of_item(random)
    if random.random() < 0.5:
        tail = [("        continue", ""), (f"    r.append({item})", words)]
    else:
        other, other_words = _of_item(random)
        tail = [(f"        r.append({item})", words), ("    else:", ""), (f"        r.append({other})", other_words)]
    return ("items",), [*head, *tail, ("return r", "")]


def search(random: Random) -> Drawn:
    item, words = _of_item(random)
    compared, operator = _pick(random, COMPARISONS)
    found = _pair(random, "x", "k") if random.random() < 0.5 else _of_item(random)
    missing = str(_number(random))
    test = (f"    if {item} {operator} k:", f"{words} {compared} k")
    return ("items", "k"), [("for x in items:", ""), test, _return(found, "        "), _return((missing, missing))]


def adjust(random: Random) -> Drawn:
    first, words = _pair(random, "a", "b")
    then, then_words = _pair(random, "r", str(_number(random)))
    last = _pair(random, "r", "a") if random.random() < 0.5 else ("r", "")
    head = [(f"r = {first}", words), _if(random, "r", str(_number(random)))]
    return ("a", "b"), [*head, (f"    r = {then}", then_words), _return(last)]


def both(random: Random) -> Drawn:
    (one, one_words), (two, two_words) = (_condition(random, name, str(_number(random))) for name in "ab")
    word, other = random.choice(["and", "or"]), str(_number(random))
    test = (f"if {one} {word} {two}:", f"{one_words} {word} {two_words}")
    return ("a", "b"), [test, _return(_pair(random, "a", "b"), "    "), _return((other, other))]


def count_up(random: Random) -> Drawn:
    start, first = random.randint(0, 3), _number(random)
    term, words = _pair(random, "i", random.choice(["k", str(_number(random))]))
    verb, sign = random.choice([("add", "+"), ("take", "-")])
    stop, until = random.choice([("n + 1", "up to n"), ("n", "below n")])
    loop = (f"for i in range({start}, {stop}):", f"{start} {until}")
    return ("n", "k"), [
        (f"r = {first}", f"{first}"),
        loop,
        (f"    r {sign}= {term}", f"{verb} {words}"),
        ("return r", ""),
    ]


def clamp(random: Random) -> Drawn:
    base, words = _pair(random, "a", random.choice(["b", str(_number(random))]))
    low, high = random.randint(0, 4), random.randint(5, 9)
    head = [
        (f"r = {base}", words),
        (f"r = max(r, {low})", f"not below {low}"),
        (f"r = min(r, {high})", f"not above {high}"),
    ]
    return ("a", "b"), [*head, _return(_pair(random, "r", "b"))]


FAMILIES: tuple[Callable[[Random], Drawn], ...] = (choose, fold, collect, search, adjust, both, count_up, clamp)
