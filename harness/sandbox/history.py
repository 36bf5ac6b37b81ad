"""No future in the repository: commits that came after the base commit hold the fix, so they are removed, provably."""

import threading

from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.worktree import GIT, Shell
from aem_harness.harness.types import Observation

# A folder that is no repository has no future; anything else that git says is a reason not to go on.
_BASE = f"""
{GIT}
if said=$(git rev-parse --git-dir 2>&1 > /dev/null); then git rev-parse --verify --quiet HEAD || [ $? -eq 1 ]
else case $said in *'not a git repository'*) ;; *) echo "$said"; exit 1;; esac; fi
"""

# Objects of every kind of storage, reachable or not, that are commits or tags beyond what HEAD can reach. (sed, unlike
# head, reads to the end: with thousands of strangers a closed pipe would look like a failure.)
_STRANGERS = rf"""
set -o pipefail
{GIT}
git cat-file --batch-all-objects --unordered --batch-check='%(objecttype) %(objectname)' |
  awk '$1 == "commit" {{ print $2 }}' | sort > /tmp/.aem-all &&
git rev-list HEAD | sort > /tmp/.aem-past &&
comm -23 /tmp/.aem-all /tmp/.aem-past | sed -n 1,3p
status=$?; rm -f /tmp/.aem-all /tmp/.aem-past; exit $status
"""

# References to the past are kept: `git describe` and version schemes need the tags.
_REMOVE = rf"""
set -e
{GIT}
git for-each-ref --format='delete %(refname)' --no-merged=HEAD | git update-ref --stdin
git stash clear
cd "$(git rev-parse --git-dir)"
rm -rf FETCH_HEAD ORIG_HEAD MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_* logs worktrees \
  objects/info/alternates objects/info/commit-graph objects/info/commit-graphs
cd - > /dev/null
for remote in $(git remote); do git remote remove "$remote"; done
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
    base = shell.execute(_BASE)
    if base.returncode:
        raise EnvironmentFault(f"git cannot read the image's repository: {_last(base)}")
    if not base.output.strip() or not _strangers(shell):
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
    searched = shell.execute(_STRANGERS, timeout=600.0)
    if searched.returncode:
        raise EnvironmentFault(f"cannot look for commits beyond the base: {_last(searched)}")
    return searched.output.strip()


def _last(seen: Observation) -> str:
    return (seen.output.strip().splitlines() or ["no output"])[-1][:200]
