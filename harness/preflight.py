"""Can a rollout work in a task's image? Looked at in one container, before hours are spent in many."""

import re
from collections.abc import Iterable, Iterator, Sequence

from aem_harness.harness.config import Limits
from aem_harness.harness.errors import AemError, EnvironmentFault
from aem_harness.harness.finding import Finding
from aem_harness.harness.sandbox import fetched
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.sandbox.engine import architecture
from aem_harness.harness.sandbox.images import ensure_image, find, local_images
from aem_harness.harness.sandbox.worktree import GIT
from aem_harness.harness.types import Task

TOOLS = "git find tar sha256sum"  # beside bash and perl, without which no container opens
MOST = 12  # images that are looked at, of different repositories

_LOOK = f"""
for tool in {TOOLS}; do command -v $tool > /dev/null || echo "lacks $tool"; done
[ -n "$(ls -A 2> /dev/null)" ] || echo "empty"
echo "owner $(stat -c %u .)"
{GIT}
if git rev-parse --git-dir > /dev/null 2>&1; then
  echo "repository"
  git rev-parse --verify --quiet HEAD > /dev/null || echo "unborn"
  git cat-file -e "$base^{{commit}}" 2> /dev/null || echo "no-base"
  [ -e .gitmodules ] && echo "submodules"
  [ -n "$(git rev-parse --show-prefix)" ] && echo "below $(git rev-parse --show-toplevel)"
  [ -n "$(git status --porcelain --untracked-files=no 2>&1 | head -1)" ] && echo "dirty"
fi
unset GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL
for used in $(git grep -hoE 'filter=[^ ]+' -- .gitattributes '**/.gitattributes' 2> /dev/null | sort -u); do
  name=${{used#filter=}}
  git config --get-regexp "^filter[.]$name[.](clean|process)$" > /dev/null && echo "filter $name"
done
true
"""


def look(task: Task, limits: Limits | None = None) -> list[Finding]:
    """What is to be said of a task's image. Raises AemError where no container of it can be opened under `limits`."""
    where = f"{task.instance.workdir} of {task.instance.image}"
    options = {"workdir": task.instance.workdir, "limits": limits, "scrub_git": False, "prelude": ""}
    with Sandbox(task.instance.image, labels={"aem.preflight": "1"}, **options) as box:  # type: ignore[arg-type]
        seen = box.execute(f"base={task.instance.base_commit or 'HEAD'}\n{_LOOK}")
    said = set(seen.output.splitlines())
    found = list(_findings(said, where, task))
    return found or [Finding(level="ok", what="image", detail=f"{task.instance.image}: usable")]


def _findings(said: set[str], where: str, task: Task) -> Iterator[Finding]:
    def finding(level: str, detail: str, remedy: str) -> Finding:
        return Finding.model_validate({"level": level, "what": "image", "detail": detail, "remedy": remedy})

    if lacking := sorted(line.removeprefix("lacks ") for line in said if line.startswith("lacks ")):
        yield finding("problem", f"{where}: no {', '.join(lacking)}", "install it in the image: patches need it")
    if "empty" in said:
        yield finding("problem", f"{where} is empty", "repair the image, or the row's workdir: the code is elsewhere")
    elif "repository" not in said:
        yield finding(
            "warning", f"{where} is no git repository", "patches are made nevertheless; eval scripts that use git fail"
        )
    elif above := sorted(line.removeprefix("below ") for line in said if line.startswith("below ")):
        # findings/git-apply-below-the-top-of-a-repository-does-nothing.sh
        remedy = "give it a repository of its own: `git apply` there leaves patches out, and says that it applied them"
        yield finding("problem", f"{where} lies inside the git repository {above[0]}", remedy)
    elif "unborn" in said or "no-base" in said:
        commit = task.instance.base_commit[:12]
        yield finding("warning", f"{where} lacks the base commit {commit}", "check that image and row belong together")
    if "dirty" in said:
        yield finding(
            "warning", f"{where} has changes that are not committed", "they count as the state before the agent"
        )
    for owner in (re.fullmatch(r"owner ([1-9]\d*)", line) for line in said):
        if owner:
            remedy = "git in the container refuses to work for root there, except in the harness's own calls"
            yield finding("warning", f"{where} belongs to user {owner[1]}", remedy)
    for name in sorted(line.removeprefix("filter ") for line in said if line.startswith("filter ")):
        remedy = "changes to such files are listed in the receipt and left out of the patch"
        yield finding("warning", f"{where} passes files through the git filter {name}", remedy)


def unusable(tasks: Sequence[Task], limits: Limits, *, fetch: bool = True, mirror: str | None = None) -> str:
    """Why no rollout can work in the images of these tasks, with the remedy; empty where one of the first three will.

    What is wrong with the others is the fault of their rollouts alone, as is an image that cannot be had. Without
    `fetch` only images are looked at that are there. Raises ConfigError for limits that the engine does not know.
    """
    why = ""
    for task in list({task.instance.image: task for task in tasks}.values())[:3]:
        try:
            if not fetch and find(task.instance.image) is None:
                continue
            pulled = fetch and ensure_image(task, mirror=mirror).source == "pulled"
            if pulled and (image := find(task.instance.image)) is not None:  # another run may remove it at once
                fetched.note(task.instance.image, str(image.id))
        except EnvironmentFault:
            return ""
        try:
            problems = [finding for finding in look(task, limits) if finding.level == "problem"]
            if not problems:
                return ""
            why = f"{problems[0].detail}; {problems[0].remedy}"
        except EnvironmentFault:
            why = _foreign(task.instance.image)
            if not why:
                return ""
    return why


def _foreign(name: str) -> str:
    """What is to be said of an image that starts no container, if it is for another architecture than the engine's."""
    try:
        image, ours = find(name), architecture()
    except Exception:  # the engine does not answer: others see to that
        return ""
    its = image.attrs.get("Architecture") if image is not None else ""
    if not its or not ours or its == ours:
        return ""
    return (
        f"no container of {name} starts: the image is for {its}, and the engine for {ours}; take images for {ours}, or "
        "install an emulator on the engine's machine (Debian: qemu-user-static)"
    )


def look_at_images(tasks: Sequence[Task], limits: Limits | None = None) -> Iterator[Finding]:
    """One present image of each repository."""
    present = {image.name for image in local_images(tasks)}
    chosen = {task.instance.repo: task for task in reversed(tasks) if task.instance.image in present}
    if not chosen:
        yield Finding(level="ok", what="image", detail="no image of the set is present yet; a run pulls or builds them")
    for task in list(chosen.values())[:MOST]:
        yield from _safely(task, limits)


def _safely(task: Task, limits: Limits | None) -> Iterable[Finding]:
    try:
        return look(task, limits)
    except AemError as error:
        return [
            Finding(level="problem", what="image", detail=str(error), remedy="repair the image, or choose other tasks")
        ]
