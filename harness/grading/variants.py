"""Held-out variants: copies of a listed test with other literals, to see whether a fix is more than its examples. Pure.

A patch that answers the literals of the listed tests, and nothing else, passes them. A variant calls the same code with
numbers and words changed by a seeded chance, each in the same way wherever it stands, so that what belongs together
stays together. The values to expect are learnt: in a first text each comparison records what it got, which the gold
patch answers; in the second that value, where it is a literal, stands in the place of the old one. A comparison with
something else keeps it, changed alike. What gold does not pass, or the base does, is dropped by `heldout`.
"""

import ast
import copy
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aem_harness.harness.grading.canary import kind_of, listed_files, new_names, writing
from aem_harness.harness.types import Record, Task

TRIED = 36  # candidates of an instance
LEARNT = "/tmp/learnt-values"  # in the container
_MOST = 2000  # characters of a learnt value
_NUMBER, _TOKEN = re.compile(r"[0-9]+"), re.compile(r"[0-9]+|[A-Za-z]+")
_EQUAL = ("assertEqual", "assertEquals", "assertIs")


class Variant(Record):
    """One variant: the file it is added to, the listed test it is of, its name (of an example: its line), its text."""

    file: str
    test: str
    name: str
    text: str


@dataclass(frozen=True)
class Draft:
    """A changed copy of a test, its expected values not known yet. `tree` is a function, or an assert (an example)."""

    file: str
    test: str
    owner: str
    tree: ast.FunctionDef | ast.Assert

    def learning(self, number: int) -> Variant:
        """The text that records what each comparison got, under the keys `number.0`, `number.1`, ..."""
        return self._variant(lambda index, node: _recording(node, f"{number}.{index}"))

    def settled(self, number: int, learnt: Mapping[str, str]) -> Variant:
        """The text that expects what was learnt."""
        return self._variant(lambda index, node: _expecting(node, learnt.get(f"{number}.{index}", "")))

    def _variant(self, change: "Change") -> Variant:
        tree = _Comparisons(change).visit(copy.deepcopy(self.tree))
        if isinstance(tree, ast.Assert):
            return Variant(file=self.file, test=self.test, name="", text=f"{ast.unparse(tree.test)}\n")
        text = f"\n\n{ast.unparse(ast.fix_missing_locations(tree))}\n"
        if self.owner:
            text += f"\n\n{self.owner}.{tree.name} = {tree.name}\ndel {tree.name}\n"
        return Variant(file=self.file, test=self.test, name=tree.name, text=text)


def drafts(task: Task, sources: Mapping[str, str], chance: random.Random, count: int = TRIED) -> list[Draft]:
    """Up to `count` different drafts, of each test that must begin to pass in turn; none where no form is known."""
    originals = list(_examples(task, sources) if kind_of(task) == "example" else _functions(task, sources))
    names = iter(new_names("\n".join(sources.values()), count, chance) if originals else ())
    made: list[Draft] = []
    seen = {ast.dump(tree) for *_, tree in originals}
    for turn in range(count if originals else 0):
        path, test, owner, tree = originals[turn % len(originals)]
        changed = _changed(tree, chance, words=turn >= count * 2 // 3)
        if changed is None or ast.dump(changed) in seen:
            continue
        seen.add(ast.dump(changed))
        if isinstance(changed, ast.FunctionDef):
            changed.name = next(names)
        made.append(Draft(path, test, owner, changed))
    return made


def plant(
    task: Task, sources: Mapping[str, str], variants: Iterable[Variant], chance: random.Random
) -> tuple[tuple[Variant, ...], str]:
    """The variants as they are named in the log, and the eval script that adds them to the ends of their files."""
    texts: dict[str, str] = {}
    named = []
    for variant in variants:
        text = texts.setdefault(variant.file, sources[variant.file].rstrip("\n") + "\n")
        named.append(variant.model_copy(update={"name": variant.name or str(text.count("\n"))}))
        texts[variant.file] = text + variant.text
    if kind_of(task) == "bare":  # the parser cannot read the line of a file's last test
        last = {path: new_names(text, 1, chance)[0] for path, text in texts.items()}
        texts = {path: f"{text}\n\ndef {last[path]}():\n    pass\n" for path, text in texts.items()}
    return tuple(named), writing(task.eval_script, texts, chance) or ""


def learnt(output: str) -> dict[str, str]:
    """The values that a learning run recorded: by key, those that are one literal whenever they were compared."""
    values: dict[str, set[str]] = {}
    for line in output.splitlines():
        try:
            key, value = ast.literal_eval(line)
            values.setdefault(key, set()).add(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return {key: next(iter(each)) for key, each in values.items() if len(each) == 1 and _literal(next(iter(each)))}


# --- the listed tests -------------------------------------------------------------------------------------------------

Listed = tuple[str, str, str, ast.FunctionDef | ast.Assert]  # file, test, owner ("" for none), tree


def _examples(task: Task, sources: Mapping[str, str]) -> Iterable[Listed]:
    for test in task.fail_to_pass:
        path, _, number = test.rpartition("::")
        lines = sources.get(path, "").splitlines()
        example = _parsed(lines[int(number)]) if number.isdecimal() and int(number) < len(lines) else None
        if example is not None:
            yield path, test, "", example


def _parsed(example: str) -> ast.Assert | None:
    try:
        test = ast.parse(example, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return ast.Assert(test=test) if isinstance(test, ast.Compare) else None


def _functions(task: Task, sources: Mapping[str, str]) -> Iterable[Listed]:
    """Each function among the tests that must begin to pass."""
    wanted = {_function_of(test) for test in task.fail_to_pass}
    for path in listed_files(task):
        try:
            body = ast.parse(sources.get(path, "")).body
        except (SyntaxError, ValueError):  # written for another Python
            continue
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        for owner, inside in [("", body), *((node.name, node.body) for node in classes)]:
            for node in inside:
                if isinstance(node, ast.FunctionDef) and (owner, node.name) in wanted:
                    yield path, node.name, owner, node


def _function_of(test: str) -> tuple[str, str]:
    """Class ("" for none) and function of a test's id, in any of its forms."""
    if match := re.fullmatch(r"(\w+) \((?:[\w.]+?)\.(\w+)(?:\.test\w*)?\)", test):
        return match[2], match[1]
    *_, owner, name = ["", "", *test.split("[", 1)[0].split("::")]
    return ("" if "." in owner or "/" in owner else owner), name


# --- other literals ---------------------------------------------------------------------------------------------------


def _changed(
    tree: ast.FunctionDef | ast.Assert, chance: random.Random, *, words: bool
) -> ast.FunctionDef | ast.Assert | None:
    """A copy with one parameter set and some of its numbers, or words, changed; None where it has neither.

    Words come last: one may be a keyword of what is tested, and another in its place asks for something else.
    """
    original, tree = tree, copy.deepcopy(tree)
    listed = set(_tokens(_literals(tree)))
    if isinstance(tree, ast.FunctionDef):
        for decorator in tree.decorator_list:
            _one_set(decorator, chance)
    spared = _expected_nodes(tree)
    constants = [node for node in _literals(tree) if id(node) not in spared]
    tokens = _tokens(constants)
    choice = [token for token in tokens if token.isdecimal() != words] or tokens
    if not choice:
        return None
    change: dict[str, str] = {}
    for token in chance.sample(choice, min(len(choice), chance.choice((1, 2, 3, len(choice))))):
        change[token] = _other(token, {*listed, *change.values()}, chance)
    for node in _literals(tree):
        text = _pattern(node).sub(lambda match: change.get(match[0], match[0]), str(node.value))
        node.value = float(text) if isinstance(node.value, float) else int(text) if type(node.value) is int else text
    if isinstance(tree, ast.FunctionDef) and isinstance(original, ast.FunctionDef):
        _without_unchanged(tree, original)
    return tree


def _without_unchanged(tree: ast.FunctionDef, original: ast.FunctionDef) -> None:
    """Leave out the assertions on nothing but literals in which none was changed: those are the listed ones."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local = stored | {each.arg for each in ast.walk(tree.args) if isinstance(each, ast.arg) and each.arg != "self"}
    listed = {ast.dump(node) for node in original.body}

    def unchanged(node: ast.stmt) -> bool:
        alone = not any(isinstance(each, ast.Name) and each.id in local for each in ast.walk(node))
        asserted = isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and _sides(node.value) is not None)
        return asserted and alone and ast.dump(node) in listed

    tree.body = [node for node in tree.body if not unchanged(node)] or tree.body


def _tokens(literals: Iterable[ast.Constant]) -> list[str]:
    """The numbers and words in them, sorted."""
    return sorted({token for node in literals for token in _pattern(node).findall(str(node.value))})


def _pattern(node: ast.Constant) -> re.Pattern[str]:
    return _TOKEN if isinstance(node.value, str) else _NUMBER  # the e of 1e-05 is no word


def _literals(tree: ast.FunctionDef | ast.Assert) -> list[ast.Constant]:
    """The numbers and texts that a test works with: no docstrings or list indices, of decorators parameter sets."""
    inside: list[ast.AST] = [tree]
    if isinstance(tree, ast.FunctionDef):
        sets = [each.args[1] for each in tree.decorator_list if _is_parametrize(each) and isinstance(each, ast.Call)]
        inside = [*sets, *(node for node in tree.body if not (isinstance(node, ast.Expr) and _is_constant(node.value)))]
    nodes = [node for part in inside for node in ast.walk(part)]
    slices = [node.slice for node in nodes if isinstance(node, ast.Subscript)]
    places = {id(each) for part in slices for each in ast.walk(part) if not isinstance(getattr(each, "value", ""), str)}
    nodes = [node for node in nodes if id(node) not in places]
    return [node for node in nodes if isinstance(node, ast.Constant) and type(node.value) in (int, float, str)]


def _expected_nodes(tree: ast.FunctionDef | ast.Assert) -> set[int]:
    """The ids of nodes that are only expected values: to change them alone would change nothing that is called."""
    sides = [pair for node in ast.walk(tree) if (pair := _sides(node))]
    loads = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    names = {side.id for _, side in sides if isinstance(side, ast.Name) and loads.count(side.id) == 1}
    parts: list[ast.AST] = [expected for _, expected in sides]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id in names for to in node.targets):
            parts.append(node.value)
        if isinstance(node, ast.Call) and _is_parametrize(node):
            columns = [index for index, name in enumerate(_parameters(node)) if name in names]
            for each in getattr(node.args[1], "elts", []):
                values = each.elts if isinstance(each, ast.Tuple) else getattr(each, "args", [each])
                parts += [values[index] for index in columns if index < len(values)]
    return {id(node) for part in parts for node in ast.walk(part)}


def _one_set(decorator: ast.expr, chance: random.Random) -> None:
    if isinstance(decorator, ast.Call) and _is_parametrize(decorator):
        sets = decorator.args[1]
        if isinstance(sets, ast.List | ast.Tuple) and sets.elts:
            decorator.args[1] = ast.List(elts=[chance.choice(sets.elts)], ctx=ast.Load())
            decorator.keywords = [each for each in decorator.keywords if each.arg != "ids"]


def _is_parametrize(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "parametrize" and len(node.args) > 1


def _parameters(decorator: ast.Call) -> list[str]:
    names = decorator.args[0]
    parts = names.elts if isinstance(names, ast.List | ast.Tuple) else [names]
    return [name for part in parts if isinstance(part, ast.Constant) for name in re.findall(r"\w+", str(part.value))]


def _other(token: str, taken: set[str], chance: random.Random) -> str:
    """Another number nearby, or another word of the same length and case, that is not `taken`."""
    for turn in range(20):
        if token.isdecimal():
            other = str(int(token) + chance.choice((1, 1, 2, 3, 4)) + turn // 4).zfill(len(token))
        else:
            letters = "bcdfghjkmnpqrstvwz"
            drawn = [chance.choice(letters) for _ in token]
            other = "".join(new.upper() if old.isupper() else new for old, new in zip(token, drawn, strict=True))
        if other not in taken:
            break
    return other


# --- comparisons ------------------------------------------------------------------------------------------------------

Change = Callable[[int, ast.expr], ast.expr]


class _Comparisons(ast.NodeTransformer):
    """Replaces every comparison that a test asserts by what `change` makes of its number and itself."""

    def __init__(self, change: Change) -> None:
        self._change, self._number = change, 0

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        node.test = self._replaced(node.test)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return self._replaced(node) if _sides(node) else node

    def _replaced(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.BoolOp):
            node.values = [self._replaced(each) for each in node.values]
        elif _sides(node):
            self._number += 1
            return self._change(self._number - 1, node)
        return node


def _sides(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """What a comparison got and what it expects; None of anything else, and where both are literals."""
    pair: Sequence[ast.expr] = ()
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq | ast.Is):
        pair = (node.left, node.comparators[0])
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _EQUAL and len(node.args) > 1:
        pair = node.args[:2]
    if not pair or all(map(_is_literal, pair)):
        return None
    return (pair[1], pair[0]) if _is_literal(pair[0]) else (pair[0], pair[1])


def _recording(node: ast.expr, key: str) -> ast.expr:
    sides = _sides(node)
    assert sides is not None
    record = f"open({LEARNT!r}, 'a').write(repr(({key!r}, repr(found))) + '\\n')"
    call = ast.parse(f"(lambda found: [{record}, True][-1])(0)", mode="eval").body
    assert isinstance(call, ast.Call)
    call.args = [sides[0]]
    return ast.Compare(call, [ast.Eq()], [ast.Constant(True)])


def _expecting(node: ast.expr, value: str) -> ast.expr:
    sides, expected = _sides(node), _literal(value)
    assert sides is not None
    if expected is None:
        return node
    got, old = sides
    if isinstance(old, ast.Call) and getattr(old.func, "attr", getattr(old.func, "id", "")) == "approx":
        old.args[:1], expected = [expected], old
    if isinstance(node, ast.Call):
        node.args[:2] = [got, expected]
        return node
    return ast.Compare(got, [ast.Eq()], [expected])


def _literal(text: str) -> ast.expr | None:
    try:
        node = ast.parse(text, mode="eval").body if 0 < len(text) <= _MOST else None
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return node if node is not None and _is_literal(node) else None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)
