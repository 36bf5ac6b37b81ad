"""No future in the repository: commits that came after the base commit hold the fix, so they are removed, provably."""

import threading
from typing import Protocol

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.types import Observation


class Shell(Protocol):
    def execute(self, command: str, *, timeout: float = 60.0, cwd: str | None = None) -> Observation: ...


# Objects of every kind of storage, reachable or not, that are commits or tags beyond what HEAD can reach. (sed, unlike
# head, reads to the end: with thousands of strangers a closed pipe would look like a failure.)
_STRANGERS = r"""
set -o pipefail
git cat-file --batch-all-objects --unordered --batch-check='%(objecttype) %(objectname)' |
  awk '$1 == "commit" { print $2 }' | sort > /tmp/.aem-all &&
git rev-list HEAD | sort > /tmp/.aem-past &&
comm -23 /tmp/.aem-all /tmp/.aem-past | sed -n 1,3p
status=$?; rm -f /tmp/.aem-all /tmp/.aem-past; exit $status
"""

# References to the past are kept: `git describe` and version schemes need the tags.
_REMOVE = r"""
set -e
git for-each-ref --format='delete %(refname)' --no-merged=HEAD | git update-ref --stdin
git stash clear
cd "$(git rev-parse --git-dir)"
rm -rf FETCH_HEAD ORIG_HEAD MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_* logs worktrees \
  objects/info/alternates objects/info/commit-graph objects/info/commit-graphs
cd - > /dev/null
git remote | xargs -r -n 1 git remote remove
git repack -a -d -q --no-write-bitmap-index
git prune --expire=now
"""

_clean: set[str] = set()
_lock = threading.Lock()


def remove_future(shell: Shell, image_id: str) -> None:
    """Remove every commit that is not an ancestor of HEAD, and prove that none is left; else EnvironmentFault.

    An image once found without a future is not searched again by this process.
    """
    if image_id in _clean:
        return
    if not _strangers(shell):
        with _lock:
            _clean.add(image_id)
        return
    removal = shell.execute(_REMOVE, timeout=600.0)
    if removal.returncode:
        raise EnvironmentFault(f"cannot remove the repository's future: {_last(removal)}")
    left = _strangers(shell)
    if left:
        raise EnvironmentFault(f"the repository still holds a commit beyond its base: {left.split()[0]}")


def _strangers(shell: Shell) -> str:
    found = shell.execute(_STRANGERS, timeout=600.0)
    if found.returncode:
        raise EnvironmentFault(f"cannot look for commits beyond the base: {_last(found)}")
    return found.output.strip()


def _last(seen: Observation) -> str:
    return (seen.output.strip().splitlines() or ["no output"])[-1][:200]
