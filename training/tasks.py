"""Bug-fix tasks: a small function with one mutation, checked by really running its examples.

A task is kept only when the correct function passes all its examples and the mutated one fails at least one that the
policy can see and one that it cannot. Train and test are split by the skeleton of the function (names and constants
taken out), so no test function has the shape of a training function.
"""

import ast
import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal

from aem_harness.harness.errors import ConfigError
from aem_harness.training import functions
from aem_harness.training.project.t import failures

Split = Literal["train", "test"]
TEST_SHARE = 0.15  # of the skeletons
TRAIN_SEED, TEST_SEED = 0, 1  # of the tasks that trainers draw from, and of those that they evaluate on
VISIBLE, HIDDEN = 3, 8  # examples


@dataclass(frozen=True)
class Edit:
    """One changed line: its number from 1, and its text before and after."""

    line: int
    before: str
    after: str


@dataclass(frozen=True)
class BugFix:
    """`bug` is the source that the policy finds, `fix` the line that was mutated. Examples read `call == value`."""

    name: str
    family: str
    gold: str
    bug: str
    fix: Edit
    visible: tuple[str, ...]
    hidden: tuple[str, ...]

    @cached_property
    def issue(self) -> str:
        """What the report says: the first visible example that fails."""
        return next(failure for failure in failures(self.bug, self.visible) if failure)


def tasks(split: Split, *, seed: int, count: int) -> Iterator[BugFix]:
    """`count` tasks of one split; the same seed gives the same tasks on every machine.

    No function comes twice. Test tasks have distinct names too, so that they can be modules of one project.
    """
    random = Random(f"{split}:{seed}")
    seen: set[str] = set()
    for _ in range(100 * count):
        if len(seen) == count:
            return
        function = functions.draw(random)
        key = function.name if split == "test" else function.source
        if key in seen or split_of(function.skeleton) != split:
            continue
        if task := make_task(function, random):
            seen.add(key)
            yield task
    if len(seen) < count:
        raise ConfigError(f"only {len(seen)} of {count} tasks found: ask for fewer")


def split_of(skeleton: str) -> Split:
    share = int.from_bytes(hashlib.sha256(skeleton.encode()).digest()[:4], "big") / 2**32
    return "test" if share < TEST_SHARE else "train"


def make_task(function: functions.Function, random: Random) -> BugFix | None:
    """A random mutation of the function with examples that show it; None where 60 random calls cannot."""
    mutant = random.choice(mutants(function.source))
    (fix,) = edits(mutant, function.source)
    if sum(line.strip() == fix.before.strip() for line in mutant.splitlines()) > 1:
        return None  # an edit by content could not tell the lines apart
    calls = {
        f"{function.name}({', '.join(map(repr, functions.arguments(function.parameters, random)))})" for _ in range(60)
    }
    examples = [f"{call} == {value}" for call, value in run(function.source, sorted(calls)).items()]
    random.shuffle(examples)
    verdicts = failures(mutant, examples)
    telling = [example for example, failure in zip(examples, verdicts, strict=True) if failure]
    silent = [example for example, failure in zip(examples, verdicts, strict=True) if not failure]
    if len(telling) < 3 or any(failures(function.source, examples)):
        return None
    visible = telling[:1] + (telling[1:2] + silent)[: VISIBLE - 1]
    hidden = [example for example in telling + silent if example not in visible]
    telling_first = sorted(hidden[: HIDDEN * 3], key=lambda example: (example not in telling[:6], example))
    if len(visible) < VISIBLE or len(telling_first) < HIDDEN:
        return None
    random.shuffle(visible)
    return BugFix(
        name=function.name,
        family=function.family,
        gold=function.source,
        bug=mutant,
        fix=fix,
        visible=tuple(visible),
        hidden=tuple(telling_first[:HIDDEN]),
    )


def run(source: str, calls: list[str]) -> dict[str, str]:
    """Each call's value as text, from the source as it stands (trusted: it comes from the generator)."""
    space: dict[str, object] = {}
    exec(compile(source, "module", "exec"), space)
    return {call: repr(eval(call, space)) for call in calls}


def mutants(source: str) -> list[str]:
    """Every single mutation of the function, in the order of its nodes; the comments stay as they are."""
    tree, comments = ast.parse(source), functions.comments_of(source)
    found = []
    for node in ast.walk(tree):
        for changed in _changes(node):
            # Put the change where the node is, print, and put the node back.
            saved = copy.copy(node.__dict__)
            node.__dict__.update(changed)
            found.append(functions.commented(ast.unparse(tree), comments))
            node.__dict__.update(saved)
    return list(dict.fromkeys(text for text in found if text != source and len(edits(source, text)) == 1))


def edits(before: str, after: str) -> list[Edit]:
    """The lines that differ between two sources of equally many lines."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return [Edit(number, old, new) for number, (old, new) in enumerate(pairs, 1) if old != new]


_COMPARISONS: tuple[type[ast.cmpop], ...] = (ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq)
_OPERATORS: tuple[type[ast.operator], ...] = (ast.Add, ast.Sub)


def _changes(node: ast.AST) -> Iterator[Mapping[str, object]]:
    """The field values that mutate this node."""
    match node:
        case ast.Compare(ops=[operator]):
            yield from ({"ops": [other()]} for other in _COMPARISONS if not isinstance(operator, other))
        case ast.BinOp(op=operator):
            yield from ({"op": other()} for other in _OPERATORS if not isinstance(operator, other))
        case ast.AugAssign(op=operator):
            yield {"op": ast.Sub() if isinstance(operator, ast.Add) else ast.Add()}
        case ast.BoolOp(op=operator):
            yield {"op": ast.Or() if isinstance(operator, ast.And) else ast.And()}
        case ast.Constant(value=int(value)):
            yield from ({"value": other} for other in (value - 1, value + 1) if 0 <= other <= 9)
        case ast.Name(id="max" | "min" as name):
            yield {"id": "min" if name == "max" else "max"}
        case ast.Name(id="a" | "b" as name, ctx=ast.Load()):
            yield {"id": "b" if name == "a" else "a"}
