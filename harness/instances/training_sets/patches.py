"""Unified diffs that are turned round, and that are put together from their parts."""

import re
from collections.abc import Iterator

from aem_harness.harness.errors import DataError

_HUNK = re.compile(r"@@ -(\S+) \+(\S+) @@(.*)", re.DOTALL)
# Lines of a file's header, and what each becomes.
_HEADERS = (
    ("new file mode ", "deleted file mode "),
    ("deleted file mode ", "new file mode "),
    ("rename from ", "rename to "),
    ("rename to ", "rename from "),
)


def reversed_patch(patch: str) -> str:
    """The patch that takes `patch` back. Raises DataError for a binary one and for what is no unified diff."""
    lines = patch.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if not any(line.startswith("@@ -") for line in lines) and "rename from " not in patch:
        raise DataError("patch is not a unified diff")
    out: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        if hunk := _HUNK.match(line):
            out.append(f"@@ -{hunk[2]} +{hunk[1]} @@{hunk[3]}")
            number, body = _body(lines, number + 1, hunk)
            out += _turned(body)
        elif line.startswith("--- ") and number + 1 < len(lines) and lines[number + 1].startswith("+++ "):
            out += ["--- " + _side(lines[number + 1][4:], "b", "a"), "+++ " + _side(line[4:], "a", "b")]
            number += 2
        elif line.startswith("old mode ") and number + 1 < len(lines) and lines[number + 1].startswith("new mode "):
            out += ["old mode " + lines[number + 1][9:], "new mode " + line[9:]]
            number += 2
        elif line.startswith(("GIT binary patch", "Binary files ")):
            raise DataError("patch changes a binary file, which cannot be turned round")
        else:
            out.append(_header(line))
            number += 1
    return "".join(out)


def _side(path: str, old: str, new: str) -> str:
    return f"{new}/{path[2:]}" if path.startswith(f"{old}/") else path


def _header(line: str) -> str:
    if line.startswith("diff --git "):
        names = re.fullmatch(r"diff --git a/(.*) b/(.*)\n", line)
        return f"diff --git a/{names[2]} b/{names[1]}\n" if names else line
    if found := re.fullmatch(r"index ([0-9a-f]+)\.\.([0-9a-f]+)(.*)\n", line):
        return f"index {found[2]}..{found[1]}{found[3]}\n"
    return next((after + line[len(before) :] for before, after in _HEADERS if line.startswith(before)), line)


def _body(lines: list[str], start: int, hunk: re.Match[str]) -> tuple[int, list[str]]:
    """Where the hunk that begins at `start` ends, and its lines: as many as its header counts."""
    old, new = (int(count) if comma else 1 for _, comma, count in (hunk[side].partition(",") for side in (1, 2)))
    number = start
    while number < len(lines) and (old > 0 or new > 0 or lines[number].startswith("\\")):
        kind = lines[number][:1]
        old -= kind in " -\n"
        new -= kind in " +\n"
        number += 1
    return number, lines[start:number]


def _turned(body: list[str]) -> Iterator[str]:
    """A hunk's lines with added and removed ones exchanged; of every run the removed ones first, as diff writes."""
    removed: list[str] = []
    added: list[str] = []
    last = added
    for line in body:
        if line.startswith("-"):
            added.append("+" + line[1:])
            last = added
        elif line.startswith("+"):
            removed.append("-" + line[1:])
            last = removed
        elif line.startswith("\\") and (removed or added):
            last.append(line)
        else:
            yield from (*removed, *added)
            removed.clear()
            added.clear()
            yield line
    yield from (*removed, *added)
