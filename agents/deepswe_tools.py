"""The tools of R2E-Gym's scaffold, file_editor, execute_bash and search, with the answers DeepSWE was trained on.

Own code for the behaviour read in R2E-Gym (`src/r2egym/agenthub/tools/`; github.com/R2E-Gym/R2E-Gym at 8e91bc6 and
agentica-project/R2E-Gym at 67cc559) and, for execute_bash, the copy in rLLM's environment. What differs on purpose:

- R2E-Gym uploads Python programs and runs them with the environment's Python. Here search and execute_bash are shell
  commands and file_editor works from the host, so nothing is put into the container and no Python is needed there.
- The condensed view of a Python file is made by the host's Python; upstream by the environment's.
- Files that are not UTF-8 keep their bytes; upstream guesses an encoding with chardet and writes UTF-8.
- A call that upstream's argument parser would refuse gets one ERROR line in place of a usage message.
"""

import ast
import posixpath
import re
import shlex
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from aem_harness.harness.types import Environment

BLOCKED = ("git", "ipython", "jupyter", "nohup")  # as the first word of a command
CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. You should retry this "
    "tool after you have searched inside the file with `grep -n` in order to find the line numbers of what you are "
    "looking for.</NOTE>"
)
LIMIT = 10_000  # characters of a file_editor answer
SNIPPET = 4  # lines shown before and after an edit
CONCISE_ABOVE = 110  # lines from which a Python file is shown condensed unless a range is asked for
KEPT_LINES = 40  # of a long command output, at each end

NAMES = ("file_editor", "execute_bash", "search", "finish")


@dataclass(frozen=True)
class ToolResult:
    """What a tool gave back: its output, the exit code as the scaffold words it, and the seconds it took."""

    output: str
    code: str = "0"
    seconds: float = 0.0


class EditorError(Exception):
    """A misuse of the editor; `str()` is what the model reads after `ERROR: `."""


class Tools:
    """The tools of one rollout (the editor remembers what it changed)."""

    def __init__(self, environment: Environment, workdir: str, *, seconds: float) -> None:
        self._environment = environment
        self._workdir = workdir
        self._seconds = seconds
        self._history: dict[str, list[str]] = defaultdict(list)

    def call(self, name: str, parameters: Mapping[str, str]) -> ToolResult:
        """Run one tool. Unknown names get an empty answer, as upstream. EnvironmentFault rises."""
        began = time.monotonic()
        if name == "execute_bash":
            answer = self._bash(parameters.get("cmd") or parameters.get("command") or "")
        elif name == "search":
            answer = self._search(parameters)
        elif name == "file_editor":
            answer = ToolResult(self._edit(parameters))
        else:
            answer = ToolResult("", "-1")
        return ToolResult(answer.output, answer.code, time.monotonic() - began)

    # --- execute_bash -----------------------------------------------------------------------------------------------

    def _bash(self, command: str) -> ToolResult:
        words = command.split()
        if not words or "\0" in command:
            return ToolResult("ERROR: execute_bash needs a command\n", "Error: Exit code 1")
        if words[0] in BLOCKED:
            refusal = f"Bash command '{words[0]}' is not allowed. Please use a different command or tool.\n"
            return ToolResult(refusal, "Error: Exit code 1")
        # stdout and stderr apart, each bounded, with a mark between them that the command cannot know.
        mark = uuid.uuid4().hex
        clip = 'clip() { if [ "$(wc -c < "$1")" -gt 200000 ]; then head -c 100000 "$1"; echo; tail -c 100000 "$1"; '
        clip += 'else cat "$1"; fi; }'
        script = (
            f"d=$(mktemp -d); sh -c {shlex.quote(command)} >$d/out 2>$d/err; code=$?; {clip}; "
            f"clip $d/out; echo; echo {mark}; clip $d/err; rm -rf $d; exit $code"
        )
        seen = self._environment.execute(script, timeout=self._seconds)
        if seen.timed_out or seen.returncode == 124:
            return ToolResult(f"The command took too long to execute (>{self._seconds:g}s)", "-1")
        out, _, err = seen.output.partition(f"\n{mark}\n")
        text = f"[STDOUT]\n\n{out.strip()} \n\n[STDERR]\n\n{err.strip()}\n"
        if seen.returncode == 0:
            return ToolResult(re.sub(r"\x1b\[[0-9;]*m|\r", "", text))
        return ToolResult(f"Error executing command:\n\n{text}", f"Error: Exit code {seen.returncode}")

    # --- search -----------------------------------------------------------------------------------------------------

    def _search(self, parameters: Mapping[str, str]) -> ToolResult:
        term, path = parameters.get("search_term", ""), parameters.get("path", ".")
        if not term or "\0" in term + path:
            return ToolResult("ERROR: search needs a search_term\n", "Error: Exit code 2")
        kind, real = self._kind(path)
        quoted = shlex.quote(term)
        if kind == "file":
            found = self._run(f"grep -n -e {quoted} -- {shlex.quote(real)}")
            if found.returncode == 1:
                return ToolResult(f'No matches found for "{term}" in {real}\n')
            if found.returncode:
                return ToolResult(f"Error executing grep:\n{found.output}\n", f"Error: Exit code {found.returncode}")
            return ToolResult(f'Matches for "{term}" in {real}:\n{found.output.strip()}\n')
        if kind != "directory":
            return ToolResult(f"Directory '{real}' not found or not a directory.\n", "Error: Exit code 1")
        counted = self._run(
            f"cd {shlex.quote(real)} && grep -rFac --include='*.py' --exclude='.*' --exclude-dir='.?*' -e {quoted} . "
            "| grep -v ':0$'"
        )
        matches = [line.rpartition(":") for line in counted.output.splitlines() if line.rpartition(":")[2].isdigit()]
        if not matches:
            return ToolResult(f'No matches found for "{term}" in {real}\n')
        if len(matches) > 100:
            return ToolResult(
                f'More than {len(matches)} files matched for "{term}" in {real}. Please narrow your search.\n'
            )
        total = sum(int(count) for _, _, count in matches)
        lines = [f"{self._relative(f'{real}/{file[2:]}')} ({count} matches)" for file, _, count in matches]
        head, foot = f'Found {total} matches for "{term}" in {real}:', f'End of matches for "{term}" in {real}'
        return ToolResult("\n".join([head, *lines, foot]) + "\n")

    def _relative(self, path: str) -> str:
        inside = path.removeprefix(f"{self._workdir.rstrip('/')}/")
        return f"./{inside}" if inside != path else path

    # --- file_editor ------------------------------------------------------------------------------------------------

    def _edit(self, parameters: Mapping[str, str]) -> str:
        try:
            return self._dispatch(parameters) + "\n"
        except EditorError as error:
            return f"ERROR: {error}\n"

    def _dispatch(self, parameters: Mapping[str, str]) -> str:
        command = parameters.get("command", "")
        if "path" not in parameters:
            raise EditorError("file_editor needs a path")
        if any("\0" in value for value in parameters.values()):
            raise EditorError("a parameter holds a null byte")
        path = str(PurePosixPath(parameters["path"]))
        kind, real = self._kind(path)
        if command == "create" and kind:
            raise EditorError(f"File already exists at: {path}. Cannot overwrite with 'create'.")
        if command != "create" and not kind:
            raise EditorError(f"The path '{path}' does not exist.")
        if kind == "directory" and command != "view":
            raise EditorError(f"The path '{path}' is a directory. Only 'view' can be used on directories.")
        match command:
            case "view":
                return self._view_directory(path, real) if kind == "directory" else self._view(path, real, parameters)
            case "create":
                return self._create(path, real, parameters.get("file_text"))
            case "str_replace":
                return self._replace(path, real, parameters.get("old_str"), parameters.get("new_str", ""))
            case "insert":
                return self._insert(path, real, parameters.get("insert_line", ""), parameters.get("new_str"))
            case "undo_edit":
                return self._undo(path, real)
        raise EditorError(
            f"Unrecognized command '{command}'. Allowed commands: view, create, str_replace, insert, undo_edit."
        )

    def _view_directory(self, path: str, real: str) -> str:
        found = self._run(
            f"cd {shlex.quote(self._workdir)} && find -L {shlex.quote(path)} -maxdepth 2 -not -path '*/.*' "
            "'(' -type d -o -name '*.py' ')'"
        )
        return clip(
            f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden:\n{found.output}"
        )

    def _view(self, path: str, real: str, parameters: Mapping[str, str]) -> str:
        if not path.endswith(".py"):
            name = PurePosixPath(path).name
            return (
                "\nERROR: ERROR: Viewing non-Python files is disallowed for saving context. "
                f"File '{name}' is not a .py file."
            )
        span = _view_range(parameters.get("view_range"))
        text = self._read(real)
        concise = parameters.get("concise", "").lower() == "true"
        if span is None and len(text.splitlines()) > CONCISE_ABOVE:
            concise = True
        lines = condensed(text, path) if concise else list(enumerate(text.splitlines()))
        if span:
            first, last = span
            if not 1 <= first <= len(lines):
                return f"\nERROR: Invalid view_range {[*span]}: start line must be in [1, {len(lines)}]"
            if last != -1 and not first <= last <= len(lines):
                return (
                    f"\nERROR: Invalid view_range {[*span]}: end must be >= start and <= {len(lines)}, "
                    "or -1 to view until end."
                )
            lines = [(at, line) for at, line in lines if at + 1 >= first and (last == -1 or at + 1 <= last)]
        head = (
            f"Here is a condensed view for file: {path}; [Note: Useful for understanding file structure in a concise "
            "manner. Please use specific view_range without concise cmd if you want to explore further into the "
            "relevant parts.]\n"
            if concise
            else f"Here's the result of running `cat -n` on the file: {path}:\n"
        )
        return clip(head + "\n".join(f"{at + 1:6d} {line}" for at, line in lines))

    def _create(self, path: str, real: str, text: str | None) -> str:
        if text is None:
            raise EditorError("Cannot create file without 'file_text' parameter.")
        problem = self._write(real, text)
        if problem:
            raise EditorError(f"Error creating file at {path}: {problem}")
        self._history[path].append("")
        return (
            f"File created at {path}. {numbered(text, path)}"
            "Review the file and make sure that it is as expected. Edit the file if necessary."
        )

    def _replace(self, path: str, real: str, old: str | None, new: str) -> str:
        if not old:
            raise EditorError("Missing required parameter 'old_str' for 'str_replace'.")
        text = self._read(real)
        if (count := text.count(old)) != 1:
            if count == 0:
                raise EditorError(f"No occurrences of '{old}' found in {path} for replacement.")
            raise EditorError(
                f"Multiple occurrences of '{old}' found in {path}. Please ensure it is unique before using str_replace."
            )
        changed = text.replace(old, new)
        self._save(path, real, text, changed)
        at = text.split(old)[0].count("\n")
        first, last = max(0, at - SNIPPET), at + SNIPPET + new.count("\n")
        snippet = "\n".join(changed.split("\n")[first : last + 1])
        return (
            f"The file {path} has been edited. {numbered(snippet, f'a snippet of {path}', first + 1)}"
            "Review the changes and make sure they are as expected. Edit the file again if necessary."
        )

    def _insert(self, path: str, real: str, line: str, new: str | None) -> str:
        if new is None:
            raise EditorError("Missing required parameter 'new_str' for 'insert'.")
        text = self._read(real)
        lines = text.split("\n")
        if not re.fullmatch(r"-?\d{1,9}", line.strip()):
            raise EditorError(f"insert_line {line!r} is not a number")
        at = int(line)
        if not 0 <= at <= len(lines):
            raise EditorError(f"Invalid insert_line {at}. Must be in [0, {len(lines)}].")
        added = new.split("\n")
        self._save(path, real, text, "\n".join([*lines[:at], *added, *lines[at:]]))
        snippet = "\n".join([*lines[max(0, at - SNIPPET) : at], *added, *lines[at : at + SNIPPET]])
        return (
            f"The file {path} has been edited. "
            f"{numbered(snippet, 'a snippet of the edited file', max(1, at - SNIPPET + 1))}"
            "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). "
            "Edit the file again if necessary."
        )

    def _undo(self, path: str, real: str) -> str:
        if not self._history[path]:
            raise EditorError(f"No previous edits found for {path} to undo.")
        text = self._history[path].pop()
        self._write(real, text)
        return f"Last edit to {path} undone successfully. {numbered(text, path)}"

    # --- files in the container -------------------------------------------------------------------------------------

    def _run(self, command: str) -> "Seen":
        seen = self._environment.execute(command, timeout=self._seconds)
        return Seen(seen.output, seen.returncode)

    def _kind(self, path: str) -> tuple[str, str]:
        """`file`, `directory` or nothing, and the absolute path."""
        real = posixpath.normpath(posixpath.join(self._workdir, path))
        quoted = shlex.quote(real)
        seen = self._run(f"if [ -d {quoted} ]; then echo directory; elif [ -e {quoted} ]; then echo file; fi")
        return seen.output.strip(), real

    def _read(self, real: str) -> str:
        """The text of a file; all line ends become \\n, as in Python's text mode."""
        try:
            text = self._environment.read_file(real).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise EditorError(f"Failed to read file {real}: {error}") from None
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _save(self, path: str, real: str, before: str, after: str) -> None:
        self._history[path].append(before)
        if problem := self._write(real, after):
            raise EditorError(f"Failed to write file {path}: {problem}")

    def _write(self, real: str, text: str) -> str:
        """Write through a copy, so that owner and mode of an existing file stay; returns what went wrong."""
        copy = f"/tmp/.aem-edit-{uuid.uuid4().hex}"
        self._environment.write_file(copy, text.encode("utf-8", "surrogateescape"))
        done = self._run(f"cat {copy} > {shlex.quote(real)}; code=$?; rm -f {copy}; exit $code")
        return done.output.strip() if done.returncode else ""


@dataclass(frozen=True)
class Seen:
    output: str
    returncode: int


def clip(text: str) -> str:
    return text if len(text) <= LIMIT else text[:LIMIT] + CLIPPED


def numbered(text: str, what: str, first: int = 1) -> str:
    lines = clip(text).expandtabs().split("\n")
    body = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, start=first))
    return f"Here's the result of running `cat -n` on {what}:\n{body}\n"


def condensed(text: str, path: str) -> list[tuple[int, str]]:
    """The lines of a Python file by index, bodies of functions (4 lines up) and long class docstrings left out."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise EditorError(f"Syntax error for file {path}: {error}") from None
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, last = node.body[0].lineno - 1, (node.body[-1].end_lineno or 0) - 1
            if last - first >= 3:
                spans.append((first, last))
        elif isinstance(node, ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno - 1, (node.body[0].end_lineno or 0) - 1
            if last - first >= 4:
                spans.append((first + 1, last - 1))
    hidden = {at for first, last in spans for at in range(first, last + 1)}
    notes = [(first, f"... eliding lines {first + 1}-{last + 1} ...") for first, last in spans]
    kept = [(at, line) for at, line in enumerate(text.splitlines()) if at not in hidden]
    return sorted(notes + kept, key=lambda line: line[0])


def _view_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.strip().strip("[]()").replace(",", " ").split()
    if len(parts) != 2 or not all(re.fullmatch(r"-?\d{1,9}", part) for part in parts):
        raise EditorError(f"view_range {text!r} is not two numbers, such as [11, 40]")
    return int(parts[0]), int(parts[1])
