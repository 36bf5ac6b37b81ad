"""A few shell commands answered from memory, exactly as a container with the same files would answer them.

Reinforcement learning needs thousands of episodes a minute; a container gives a few. `MemoryEnvironment` is an
`Environment` that knows the commands of the task and either agrees with the real shell or raises `Unsupported`; it
never guesses, and it never runs anything on this machine but code of the tasks' own small grammar, under a limit of
work. A test replays episodes in containers and compares.
"""

import ast
import difflib
import re
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.types import Observation
from aem_harness.training.project.t import failures

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
MAX_LINES, MAX_BITS, MAX_CONSTANT = 300, 256, 20  # of one call; of any number; of any constant in the source


class Unsupported(Exception):
    """The command is outside what can be answered from memory exactly. In training this ends the episode."""


class MemoryEnvironment:
    """The files of one project, and the commands `cat`, `sed -i 's/x/y/'`, `python t.py`, `git checkout -q`."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._committed = dict(files)
        self.files = dict(files)

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation:
        """Raises Unsupported for any command (or any use of a known one) that is not emulated exactly."""
        for pattern, method in _COMMANDS:
            if found := pattern.fullmatch(command):
                output, code = method(self, **found.groupdict())
                return Observation(output=output, returncode=code, seconds=0.0)
        raise Unsupported(command)

    def diff(self) -> str:
        """All changes as a patch that `git apply` takes."""
        parts = []
        for path, committed in self._committed.items():
            if self.files[path] != committed:
                lines = difflib.unified_diff(
                    committed.splitlines(keepends=True),
                    self.files[path].splitlines(keepends=True),
                    f"a/{path}",
                    f"b/{path}",
                )
                parts.append(f"diff --git a/{path} b/{path}\n" + "".join(lines))
        return "".join(parts)

    def write_file(self, path: str, data: bytes) -> None:
        self.files[path] = data.decode()

    def read_file(self, path: str) -> bytes:
        if path not in self.files:
            raise EnvironmentFault(f"no file {path}")
        return self.files[path].encode()

    # --- the commands -------------------------------------------------------------------------------------------------

    def _cat(self, path: str) -> tuple[str, int]:
        if path not in self.files:
            return f"cat: {path}: No such file or directory\n", 1
        return self.files[path], 0

    def _sed(self, line: str | None, old: str, new: str, every: str, path: str) -> tuple[str, int]:
        pattern = _basic_regex(old)
        if path not in self.files:
            return f"sed: can't read {path}: No such file or directory\n", 2
        lines = self.files[path].split("\n")  # the last one is what follows the last line end: nothing
        for number, text in enumerate(lines[:-1], 1):
            if line is None or int(line) == number:
                lines[number - 1] = pattern.sub(lambda _: new, text, count=0 if every else 1)
        self.files[path] = "\n".join(lines)
        return "", 0

    def _test(self, name: str) -> tuple[str, int]:
        module, tests = f"lib/{name}.py", f"tests/{name}.txt"
        if module not in self.files or tests not in self.files:
            return f"no module {name}\n", 1
        found = safe_failures(self.files[module], self.files[tests].splitlines())
        wrong = [failure for failure in found if failure]
        return (f"{wrong[0]}\n", 1) if wrong else ("all good\n", 0)

    def _checkout(self, path: str) -> tuple[str, int]:
        if path not in self._committed:
            return f"error: pathspec '{path}' did not match any file(s) known to git\n", 1
        self.files[path] = self._committed[path]
        return "", 0

    def _submit(self) -> tuple[str, int]:
        return SUBMIT.removeprefix("echo ") + "\n", 0


_PATH = r"(?P<path>[a-z]+/[a-z_]+\.[a-z]+)"
_COMMANDS: tuple[tuple[re.Pattern[str], Callable[..., tuple[str, int]]], ...] = (
    (re.compile(rf"cat {_PATH}"), MemoryEnvironment._cat),
    (
        re.compile(rf"sed -i '(?P<line>[1-9][0-9]?)?s/(?P<old>[^/'\n]+)/(?P<new>[^/'\n\\&]*)/(?P<every>g?)' {_PATH}"),
        MemoryEnvironment._sed,
    ),
    (re.compile(r"python t\.py (?P<name>[a-z_]+)"), MemoryEnvironment._test),
    (re.compile(rf"git checkout -q {_PATH}"), MemoryEnvironment._checkout),
    (re.compile(re.escape(SUBMIT)), MemoryEnvironment._submit),
)


def _basic_regex(pattern: str) -> re.Pattern[str]:
    r"""A POSIX basic regular expression without brackets and anchors, as Python's `re`.

    `.` and `*` keep their meaning, `\.`, `\*` and a leading `*` are literal, as is everything else. Without
    alternatives leftmost-longest and leftmost-greedy agree.
    """
    tokens = re.findall(r"\\[.*]|[^\\]", pattern)
    if "".join(tokens) != pattern or set(tokens) & set("[]^$") or "**" in pattern:
        raise Unsupported(f"pattern {pattern!r}")
    special = [token == "." or (token == "*" and position > 0) for position, token in enumerate(tokens)]
    return re.compile("".join(t if s else re.escape(t[-1]) for t, s in zip(tokens, special, strict=True)))


# --- running code that a policy has edited --------------------------------------------------------------------------

_NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Expr, ast.Assign, ast.AugAssign, ast.If, ast.For,
    ast.Return, ast.Continue, ast.Compare, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Name, ast.Constant, ast.Call,
    ast.Attribute, ast.List, ast.Load, ast.Store, ast.Add, ast.Sub, ast.Mult, ast.USub, ast.And, ast.Or, ast.Not,
    ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq,
)  # fmt: skip
_CALLS = {"max", "min", "range", "len"}


class _TooMuchWork(BaseException):
    """Not an Exception: it must pass the handlers of the examples' runner."""


def safe_failures(source: str, examples: list[str]) -> list[str]:
    """`t.failures` for a source that anybody may have edited; Unsupported where it leaves the tasks' grammar."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return failures(source, examples)  # cannot run, only be reported
    for node in ast.walk(tree):
        if not isinstance(node, _NODES) or not _harmless(node):
            raise Unsupported(f"code with {type(node).__name__}")
    before = sys.gettrace()
    sys.settrace(_Guard())
    try:
        return failures(source, examples)
    except _TooMuchWork:
        raise Unsupported("code that works too long") from None
    finally:
        sys.settrace(before)


def _harmless(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _CALLS
        case ast.Call(func=ast.Attribute(attr="append")):
            return True
        case ast.Call():
            return False
        case ast.Attribute(attr=name):
            return name == "append"
        case ast.Constant(value=int(value)):
            return value <= MAX_CONSTANT
        case ast.Constant(value=value):
            return isinstance(value, str)
    return True


class _Guard:
    """A trace function that stops a call after MAX_LINES lines, or when a number or list outgrows its bound."""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != "module":
            return None
        lines = 0

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal lines
            lines += 1
            if lines > MAX_LINES or any(map(_outgrown, frame.f_locals.values())):
                raise _TooMuchWork
            return line

        return line


def _outgrown(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() > MAX_BITS
    return isinstance(value, list | str) and len(value) > MAX_LINES
