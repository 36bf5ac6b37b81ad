"""What an agent left in its work tree, as a patch that does not depend on what it did to the repository.

Every file's type, size, mode, mtime and ctime are listed when the container starts, and again when the agent is done;
a file that was touched differs in its ctime, which no process in a container can set. What changed is copied, within
bounds, beside what the image has there, into a second container of the same image, and a repository of the harness's
own compares both, byte by byte: no filter, no line-end conversion, no configuration of the user, the system or the
repository has a say, nor who owns the tree, nor whether it is a repository at all. Of the work tree only .gitignore is
heeded. What the patch does not carry is named in the receipt.
"""

import hashlib
import io
import posixpath
import re
import shlex
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.types import Observation

PATCH_BYTES = 16 * 2**20  # of changed files that a patch carries, before and after alike; the smallest come first
LISTING_BYTES = 64 * 2**20  # some 500,000 files
SECONDS = 300.0  # for each look at a whole work tree; the largest official ones take some seconds
FILE_COST = 1024  # bytes that a file takes beside its content, so that a bound on bytes bounds files too
CHECKED = 500  # paths of a graded tree that are compared with what the agent left
NAMED = 100  # paths that a receipt names of each kind

_COMMAND_BYTES = 60_000  # of names in one command: the kernel takes 128 KiB
_ROOT = "/tmp/.aem-diff"  # in the second container
# Settings that only the harness makes: no file of the user or the system, any owner, nothing that runs a program.
GIT = f"""
export HOME={_ROOT}/home XDG_CONFIG_HOME={_ROOT}/home GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL={_ROOT}/home/.gitconfig
export GIT_OPTIONAL_LOCKS=0 LC_ALL=C
mkdir -p {_ROOT}/home && printf '[safe]\\n\\tdirectory = *\\n' > {_ROOT}/home/.gitconfig
git() {{ command git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c gc.auto=0 "$@"; }}
"""
_FIND = r"find . -name .git -printf 'g 0 %p\0' -prune -o -printf '%y %s %p\0%m %T@ %C@\0'"
_MAKE = f"""set -e
rm -rf {_ROOT}; {GIT}
mkdir -p {_ROOT}/a {_ROOT}/b {_ROOT}/rules; command -v git > /dev/null
git init -q --template= --bare {_ROOT}/git
# What the image itself excludes, beside .gitignore: this container is a fresh one, no agent was in it.
own=$(git rev-parse --git-path info/exclude 2> /dev/null) || own=
if [ -f "$own" ]; then mkdir -p {_ROOT}/git/info; cp "$own" {_ROOT}/git/info/exclude; fi
"""
_IGNORED = f"""{GIT}
cd {_ROOT}/rules && git --git-dir={_ROOT}/git --work-tree=. check-ignore -z --stdin --no-index < {_ROOT}/names
[ $? -le 1 ]
"""
_ATTRIBUTES = f"""{GIT}
cd {_ROOT}/rules && git --git-dir={_ROOT}/git --work-tree=. check-attr -z --stdin filter working-tree-encoding \\
  < {_ROOT}/names
"""
_DIFF = f"""set -e
{GIT}
export GIT_DIR={_ROOT}/git; mkdir -p $GIT_DIR/info
echo '* -text !eol !crlf -ident !filter !working-tree-encoding !diff' > $GIT_DIR/info/attributes
tree() {{ rm -f $GIT_DIR/index; cd {_ROOT}/$1; GIT_WORK_TREE=. git add -A -f .; GIT_WORK_TREE=. git write-tree; }}
before=$(tree a); after=$(tree b)
git -c core.quotePath=true -c diff.noprefix=false diff --binary --no-color --no-ext-diff --no-textconv \\
  --src-prefix=a/ --dst-prefix=b/ "$before" "$after"
"""


class Container(Protocol):
    """What is needed of a sandbox: commands whose output comes back as bytes, and files as a tar."""

    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation: ...

    def output(self, command: str, *, bound: int, timeout: float = SECONDS, cwd: str | None = None) -> bytes:
        """What `command` prints. Raises Unreadable when it fails or prints more than `bound` bytes."""
        ...

    def put_tar(self, folder: str, archive: bytes) -> None: ...

    def write_file(self, path: str, data: bytes) -> None: ...


class Unreadable(Exception):
    """A command that looks at a tree failed; `str()` is its last line."""

    def __init__(self, what: str, container: object = None) -> None:
        super().__init__(what)
        self.container = container


@dataclass(frozen=True)
class Entry:
    kind: str  # as find(1) names it: f, d, l, ...; g for a .git, which is not looked into
    size: int
    stamp: bytes  # mode in octal, mtime, ctime

    @property
    def program(self) -> bool:
        return int(self.stamp.split()[0], 8) & 0o100 != 0


Listing = dict[bytes, Entry]
CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}


@dataclass
class Patch:
    """The patch, and its receipt.

    `carried` maps every path that the patch changes to what the agent left there: "file", "program" or "link" and a
    SHA-256 of its content or target, None where it is gone; as a whole it is None where the agent handed in a patch of
    its own. `left_out` maps a reason to the paths that changed in the tree and that the patch does not carry.
    """

    data: bytes = b""
    carried: dict[str, str | None] | None = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, why: str, path: bytes) -> None:
        self.left_out.setdefault(why, []).append(_text(path))

    def counts(self) -> dict[str, int]:
        """How many paths the patch leaves out, by reason, for the journal; caches of Python's tools are no loss."""
        counts = {
            why: sum(CACHES.isdisjoint(path.split("/")) for path in paths) for why, paths in self.left_out.items()
        }
        return {why: count for why, count in counts.items() if count}

    def receipt(self) -> dict[str, Any]:
        """For the rollout's folder; long lists are cut, their lengths are in `counts`."""
        return {
            "bytes": len(self.data),
            "carried": None if self.carried is None else dict(list(self.carried.items())[: 10 * NAMED]),
            "left_out": {why: paths[:NAMED] for why, paths in self.left_out.items()},
            "counts": {
                "carried": len(self.carried or ()),
                **{why: len(paths) for why, paths in self.left_out.items()},
            },
        }


def listing(container: Container, workdir: str) -> bytes:
    """The work tree as it stands, for `patch_of`; .git is not looked into."""
    return container.output(_FIND, bound=LISTING_BYTES, cwd=workdir)


def patch_of(agent: Container, before: bytes, pristine: "Pristine", workdir: str) -> Patch:
    """What the agent left, against the listing `before`. `pristine` opens a fresh container of the same image.

    Raises Unreadable when the agent's container cannot be read, and EnvironmentFault when the fresh one fails.
    """
    then, today = _parse(before), _parse(listing(agent, workdir))
    patch = Patch()
    touched = [path for path in sorted({*then, *today}) if _differs(then.get(path), today.get(path))]
    if not touched:
        return patch
    with pristine() as other:
        try:
            same = _unchanged(agent, other, touched, then, today, workdir)
            candidates = list(_carriable([path for path in touched if path not in same], then, today, patch))
            _compare(agent, other, candidates, then, today, workdir, patch)
        except Unreadable as error:
            if error.container is agent:
                raise
            raise EnvironmentFault(f"the patch cannot be made in a fresh container of the image: {error}") from None
    return patch


class Pristine(Protocol):
    def __call__(self) -> Any: ...


def _compare(
    agent: Container,
    other: Container,
    candidates: list[bytes],
    then: Listing,
    today: Listing,
    workdir: str,
    patch: Patch,
) -> None:
    if not candidates:
        return
    other.output(_MAKE, bound=10_000, cwd=workdir)
    rules = [path for path in today if posixpath.basename(path) in (b".gitignore", b".gitattributes")]
    fresh = {path for path in rules if path in set(candidates)}
    _copy(other, other, [path for path in rules if path not in fresh], workdir, "rules")
    _copy(agent, other, sorted(fresh), workdir, "rules")
    heeded = _heeded(other, candidates, then, workdir, patch)
    chosen = sorted(_bounded(_unfiltered(other, heeded, workdir, patch), then, today, patch))
    _copy(other, other, [path for path in chosen if _is_file(then.get(path))], workdir, "a")
    left = _copy(agent, other, [path for path in chosen if _is_file(today.get(path))], workdir, "b")
    patch.data = other.output(_DIFF, bound=8 * PATCH_BYTES, cwd="/")
    patch.carried = {_text(path): left.get(path) for path in chosen}


# --- what changed ---------------------------------------------------------------------------------------------------


def _parse(raw: bytes) -> Listing:
    listing: Listing = {}
    records = iter(raw.split(b"\0")[:-1])
    for record in records:
        kind, size, path = record.split(b" ", 2)
        stamp = b"" if kind == b"g" else next(records)
        listing[path.removeprefix(b"./")] = Entry(kind.decode(), int(size), stamp)
    return listing


def _differs(then: Entry | None, today: Entry | None) -> bool:
    if then and today and then.kind == today.kind == "d":
        return False  # a folder is what is in it
    return then != today


def _unchanged(
    agent: Container, other: Container, touched: Sequence[bytes], then: Listing, today: Listing, workdir: str
) -> set[bytes]:
    """Files that were touched and hold what they held: a change of owner or of times is none of a patch."""

    def alike(was: Entry | None, now: Entry | None) -> bool:
        return bool(was and now and was.kind == now.kind == "f" and (was.size, was.program) == (now.size, now.program))

    suspects = [path for path in touched if alike(then.get(path), today.get(path))]
    return {path for path, _ in _sums(agent, suspects, workdir) & _sums(other, suspects, workdir)}


def _sums(container: Container, paths: list[bytes], workdir: str) -> set[tuple[bytes, bytes]]:
    sums = set()
    for names in _batches(paths):
        for line in container.output(f"sha256sum -z -- {names}", bound=LISTING_BYTES, cwd=workdir).split(b"\0")[:-1]:
            sums.add((line[66:].removeprefix(b"./"), line[:64]))
    return sums


def _is_file(entry: Entry | None) -> bool:
    return entry is not None and entry.kind in "fl"


def _carriable(touched: Sequence[bytes], then: Listing, today: Listing, patch: Patch) -> Iterator[bytes]:
    """Files and links; what else changed is left out by name."""
    parents = {posixpath.dirname(path) for path in today}
    for path in touched:
        entry = today.get(path)
        if _is_file(entry) or _is_file(then.get(path)):
            yield path
        elif entry and entry.kind == "g" and path != b".git":
            patch.leave_out("the history of a nested repository", path)
        elif entry and entry.kind == "d" and path not in parents:
            patch.leave_out("empty folder", path)
        elif entry and entry.kind not in "dg":
            patch.leave_out("neither file nor link", path)


def _heeded(other: Container, paths: list[bytes], then: Listing, workdir: str, patch: Patch) -> list[bytes]:
    """Without what .gitignore, as the agent left it, leaves out; files of the image that git tracks stay."""
    ignored = set(_asked(other, _IGNORED, paths))
    if any(path in then for path in ignored):
        try:
            tracked = set(other.output(f"{GIT}\ngit ls-files -z", bound=LISTING_BYTES, cwd=workdir).split(b"\0"))
        except Unreadable:  # no repository: nothing of the image is known to be a product
            tracked = set(then)
        nested = tuple(
            posixpath.dirname(path) + b"/" for path, entry in then.items() if entry.kind == "g" and b"/" in path
        )
        ignored -= {path for path in ignored if path in then and (path in tracked or path.startswith(nested))}
    for path in sorted(ignored):
        patch.leave_out("ignored", path)
    return [path for path in paths if path not in ignored]


def _unfiltered(other: Container, paths: list[bytes], workdir: str, patch: Patch) -> list[bytes]:
    """Without files that the image's git would convert when the grader applies a patch to them."""
    configured = "git config --get-regexp '^filter[.].*[.](clean|smudge|process)$' || true"
    script = f'git_dir=$(git -c safe.directory="*" rev-parse --git-dir 2> /dev/null); GIT_DIR=$git_dir {configured}'
    drivers = set(re.findall(rb"^filter\.(.*)\.\w+ ", other.output(script, bound=2**20, cwd=workdir), re.MULTILINE))
    words = iter(_asked(other, _ATTRIBUTES, paths))
    why: dict[bytes, str] = {}
    for path, attribute, value in zip(words, words, words, strict=True):
        if attribute == b"filter" and value in drivers:
            why[path] = f"filtered: git would pass it through the filter {_text(value)}"
        elif attribute == b"working-tree-encoding" and value not in (b"unspecified", b"unset", b"set"):
            why[path] = f"filtered: git would convert it from {_text(value)}"
    for path, reason in why.items():
        patch.leave_out(reason, path)
    return [path for path in paths if path not in why]


def _asked(other: Container, script: str, paths: list[bytes]) -> list[bytes]:
    """What a script answers about `paths`, which git would take for patterns where they begin with a colon."""
    other.write_file(f"{_ROOT}/names", b"".join(b"./" + path + b"\0" for path in paths))
    answer = other.output(script, bound=LISTING_BYTES, cwd="/")
    return [word.removeprefix(b"./") for word in answer.split(b"\0")[:-1]]


def _bounded(paths: list[bytes], then: Listing, today: Listing, patch: Patch) -> Iterator[bytes]:
    """The smallest first, as many as the bound allows."""

    def cost(path: bytes) -> int:
        return FILE_COST + max(entry.size if entry else 0 for entry in (then.get(path), today.get(path)))

    room = PATCH_BYTES
    for path in sorted(paths, key=lambda path: (cost(path), path)):
        room -= cost(path)
        if room >= 0:
            yield path
        else:
            patch.leave_out(f"too large: a patch carries {PATCH_BYTES >> 20} MiB of changed files", path)


# --- between containers ---------------------------------------------------------------------------------------------


def _copy(source: Container, target: Container, paths: Iterable[bytes], workdir: str, name: str) -> dict[bytes, str]:
    """Copy files of one container's work tree under a folder of the other; what each is, as `carried` has it."""
    carried: dict[bytes, str] = {}
    for names in _batches(paths):
        command = f"printf '%s\\0' {names} | tar -c --null --no-recursion --hard-dereference -f - -T -"
        archive = source.output(command, bound=2 * PATCH_BYTES, cwd=workdir)
        target.put_tar(f"{_ROOT}/{name}", archive)
        with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
            for member in tar:
                path = member.name.encode("utf-8", "surrogateescape").removeprefix(b"./")
                if member.issym():
                    carried[path] = f"link {_sha(member.linkname.encode('utf-8', 'surrogateescape'))}"
                elif content := tar.extractfile(member):
                    carried[path] = f"{'program' if member.mode & 0o100 else 'file'} {_sha(content.read())}"
    return carried


def _batches(paths: Iterable[bytes]) -> Iterator[str]:
    """Names as shell words, as many at a time as one command takes."""
    batch: list[str] = []
    size = 0
    for path in paths:
        word = shlex.quote("./" + _text(path))
        if batch and size + len(word) > _COMMAND_BYTES // 4:
            yield " ".join(batch)
            batch, size = [], 0
        batch.append(word)
        size += len(word) + 1
    if batch:
        yield " ".join(batch)


def differing(container: "Shell", workdir: str, carried: Mapping[str, str | None]) -> list[str]:
    """Paths of a tree that are not what `carried` says; of very many the first are looked at."""
    wanted = list(carried.items())[:CHECKED]
    different: list[str] = []
    for start in range(0, len(wanted), 50):
        part = wanted[start : start + 50]
        words = " ".join(shlex.quote("./" + path) for path, _ in part)
        seen = container.execute(_LOOK.format(words=words), timeout=SECONDS, cwd=workdir)
        lines = seen.output.splitlines()
        if len(lines) != len(part):
            raise EnvironmentFault(f"the patched tree cannot be looked at: {' '.join(seen.output.split())[-200:]}")
        different += [path for (path, what), line in zip(part, lines, strict=True) if line != (what or "gone")]
    return different


_LOOK = """for path in {words}; do
  if [ -L "$path" ]; then echo "link $(readlink -n -- "$path" | sha256sum | cut -c 1-64)"
  elif [ -f "$path" ]; then
    [ -x "$path" ] && printf 'program ' || printf 'file '; sha256sum < "$path" | cut -c 1-64
  else echo gone; fi
done"""


class Shell(Protocol):
    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation: ...


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
