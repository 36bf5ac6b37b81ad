"""A patch as what it does to files, whatever its form: git's or `diff -u`, CRLF, quoted names, renames, modes. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_QUOTED = re.compile(r'^(diff --git |--- |\+\+\+ |rename from |rename to |copy from |copy to )(.*".*)$')
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "a": "\a", "b": "\b", "f": "\f", "r": "\r", "v": "\v"}


@dataclass
class Change:
    """What a patch does to one file. `source` is its name before, where that is another one; lines lack their sign."""

    path: str
    source: str = ""
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    is_new: bool = False
    is_gone: bool = False
    is_binary: bool = False
    mode: str = ""  # that it gets, where the patch says so: 100755, 120000 (a link), 160000 (a submodule)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it touches."""
        return (self.path, self.source) if self.source else (self.path,)


@dataclass(frozen=True)
class Patch:
    """The changes in their order, and in words what could not be read; empty when all could."""

    changes: tuple[Change, ...]
    problem: str = ""


def parse(text: str) -> Patch:
    """Every change of a patch. What is no patch is skipped, as git and patch do, and never an error."""
    changes: dict[str, Change] = {}
    problem = ""
    lines = text.replace("\r\n", "\n").split("\n")
    current: Change | None = None
    at = 0
    while at < len(lines):
        line = _unquoted(lines[at])
        following = _unquoted(lines[at + 1]) if at + 1 < len(lines) else ""
        at += 1
        if line.startswith("diff --git "):
            current = _known(changes, _name(_second(line.removeprefix("diff --git "))))
        elif line.startswith("--- ") and following.startswith("+++ "):
            before, after = _name(line[4:]), _name(following[4:])
            path = after or before
            if current is None or path not in current.names:
                current = _known(changes, path)
            current.is_new |= before == ""
            current.is_gone |= after == ""
            if before and after and before != after:
                current.source = before
            at += 1
        elif current is not None and (hunk := _HUNK.match(line)):
            size = [int(number) if number is not None else 1 for number in hunk.groups()]
            at, whole = _take(lines, at, size, current)
            problem = problem or ("" if whole else f"{current.path}: a hunk is not as long as it says")
            if whole and _goes_on(lines, at):
                problem = (
                    problem or f"{current.path}: a hunk goes on after the lines that it counts, which git leaves out"
                )
        elif current is not None:
            _header(line, current)
    if text.strip() and not changes:
        problem = "no change to any file is found in it"
    return Patch(tuple(changes.values()), problem)


def _take(lines: list[str], at: int, size: list[int], change: Change) -> tuple[int, bool]:
    """Read a hunk of `size` (old, new) lines; where it ends, and whether it was whole."""
    old, new = size
    while (old > 0 or new > 0) and at < len(lines):
        sign, rest = lines[at][:1], lines[at][1:]
        if sign == "+" and new > 0:
            change.added.append(rest)
            new -= 1
        elif sign == "-" and old > 0:
            change.removed.append(rest)
            old -= 1
        elif (sign == " " or not lines[at]) and old > 0 and new > 0:
            old, new = old - 1, new - 1
        elif sign != "\\":
            return at, False
        at += 1
    return at, old <= 0 and new <= 0


def _goes_on(lines: list[str], at: int) -> bool:
    """Whether lines are added or removed between the end of a hunk and whatever follows it.

    git and patch take them for text between patches (findings/git-apply-drops-what-a-hunk-does-not-count.sh). The
    signature at the end of an e-mail, "-- ", is such text.
    """
    for number in range(at, len(lines)):
        line, following = lines[number], lines[number + 1] if number + 1 < len(lines) else ""
        if line[:1] not in (" ", "+", "-", "\\") or line == "-- " or (line[:4], following[:4]) == ("--- ", "+++ "):
            return False
        if line[:1] in "+-":
            return True
    return False


def _header(line: str, change: Change) -> None:
    if line.startswith("new file mode "):
        change.is_new, change.mode = True, line.split()[-1]
    elif line.startswith("new mode "):
        change.mode = line.split()[-1]
    elif line.startswith("deleted file mode "):
        change.is_gone = True
    elif line.startswith(("rename from ", "copy from ")):
        change.source = line.split(" ", 2)[2]
    elif line.startswith(("GIT binary patch", "Binary files ")):
        change.is_binary = True


def _known(changes: dict[str, Change], path: str) -> Change:
    return changes.setdefault(path, Change(path))


def _second(names: str) -> str:
    """The second of two names after `diff --git`, which may hold spaces."""
    half = len(names) // 2
    if names[half : half + 1] == " " and _name(names[:half]) == _name(names[half + 1 :]):
        return names[half + 1 :]
    found = re.split(r" (?=b/)", names)
    return found[-1] if len(found) > 1 else names.rsplit(" ", 1)[-1]


def _name(text: str) -> str:
    """A name without its prefix and timestamp; empty for /dev/null."""
    name = text.split("\t", 1)[0].rstrip("\r")
    return "" if name == "/dev/null" else re.sub(r"^[ab]/", "", name)


def _unquoted(line: str) -> str:
    """A header line with the names that git quoted as they are."""
    match = _QUOTED.match(line)
    return match[1] + " ".join(_names(match[2])) if match else line


def _names(text: str) -> Iterator[str]:
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|([^"\s][^"]*?)(?=\s+"|\s*$)', text):
        yield _decoded(quoted) if quoted else plain


def _decoded(text: str) -> str:
    data = bytearray()
    for octal, escape, plain in re.findall(r"\\([0-7]{3})|\\(.)|([^\\]+)", text):
        if octal:
            data.append(int(octal, 8))
        else:
            data += (plain or _ESCAPES.get(escape, escape)).encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "surrogateescape")
