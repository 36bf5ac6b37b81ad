"""One rollout as a person reads it: the conversation, the patch, the verdict."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from aem_harness.harness.errors import ConfigError, listed
from aem_harness.harness.io import read_json
from aem_harness.harness.report.live import STYLE
from aem_harness.harness.report.why import cause, end_words, failing, printable, read_tests
from aem_harness.harness.run.folder import require_run, run_json
from aem_harness.harness.run.store import read_patch
from aem_harness.harness.run.thoughts import thought_in
from aem_harness.harness.run.trajectory import read_document
from aem_harness.harness.types import Outcome

BORDER = {"system": "dim", "user": "blue", "assistant": "green", "tool": "cyan", "exit": "magenta"}


def rollout_view(run: Path, instance: str, seed: int, gold: str | None = None) -> RenderableType:
    """The trajectory of `instance` (its id, or the unique end of one) at `seed`, with patch and grade.

    `gold` is the reference patch, shown beside the rollout's.
    """
    folder = find_rollout(run, instance, seed)
    return Group(*_parts(folder, gold))


def find_rollout(run: Path, instance: str, seed: int) -> Path:
    """The folder of a finished rollout. ConfigError names those that there are, DataError where there is no run."""
    require_run(run)
    known = sorted(path.name for path in (run / "rollouts").glob("*") if path.is_dir())
    matches = [name for name in known if name == instance] or [name for name in known if name.endswith(instance)]
    if len(matches) != 1:
        what = "matches several instances" if matches else "matches no instance"
        raise ConfigError(f"{instance} {what} of {run}; it has: {listed(matches or known) or 'none yet'}")
    folder = run / "rollouts" / matches[0] / str(seed)
    if not folder.is_dir():
        seeds = sorted(path.name for path in folder.parent.glob("[0-9]*") if path.name.isdigit())
        raise ConfigError(
            f"{matches[0]} has no finished rollout with seed {seed}; finished: {', '.join(seeds) or 'none'}"
        )
    return folder


def reference_patch(run: Path, instance: str) -> str:
    """The gold patch of an instance of a run, from the dataset that the run names."""
    from aem_harness.harness.instances.load import load

    facts = run_json(run)
    names = [name for name in facts["plan"]["instances"] if name == instance or name.endswith(instance)]
    tasks = {task.instance_id: task for task in load(facts["config"]["dataset"]).tasks}
    for name in names:
        if name in tasks:
            return tasks[name].patch
    raise ConfigError(f"{facts['config']['dataset']} has no instance {instance}, so its reference patch is not known")


def _parts(folder: Path, gold: str | None) -> Iterator[RenderableType]:
    rollout = read_json(folder / "rollout.json")
    yield Rule(f"{rollout['instance_id']}  seed {rollout['seed']}")
    document = read_document(folder / f"{rollout['instance_id']}.traj.json")
    for number, message in enumerate(document["messages"]):
        yield from _message(number, message)
    yield Rule("patch" if gold is None else "patch, and the reference patch")
    patches = [_patch("patch", read_patch(folder / "patch.diff"))]
    if gold is not None:
        patches.append(_patch("reference (gold)", gold))
    yield Beside(patches) if len(patches) > 1 else patches[0]
    yield Rule("verdict")
    yield from _verdict(folder, rollout)
    if trace := (document.get("info") or {}).get("traceback"):
        yield Text("the exception of the agent's own code:", "bold")
        yield Text(printable(str(trace)).rstrip(), "red")


@dataclass(frozen=True)
class Beside:
    """Parts side by side where the terminal is wide enough for lines of code, else one below the other."""

    parts: Sequence[RenderableType]
    each: int = 70  # columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < self.each * len(self.parts):
            yield from self.parts
            return
        grid = Table.grid(expand=True)
        for _ in self.parts:
            grid.add_column(ratio=1)
        grid.add_row(*self.parts)
        yield grid


def _patch(title: str, text: str) -> RenderableType:
    body = printable(text)
    if not body.strip():
        return Text(f"{title}: empty", "dim")
    return Panel(Syntax(body, "diff", word_wrap=True, background_color="default"), title=title, title_align="left")


def _message(number: int, message: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A message; a reply without a valid action, which is kept in the complaint about it, comes before that."""
    extra = message.get("extra") or {}
    facts = [
        f"{extra[key]:.3g} {unit}" for key, unit in (("mean_entropy", "nats"), ("model_seconds", "s")) if extra.get(key)
    ]
    role = str(message["role"])
    if thought := thought_in(message):
        yield _panel(f"{number} assistant, reasoning", [], thought, "system")
    if "model_response" in extra:
        yield _panel(f"{number} assistant, malformed", facts, str(extra["model_response"]), "assistant")
        facts = []
    content = message.get("content") or ""
    body = content if isinstance(content, str) else json.dumps(content, indent=1)
    for call in message.get("tool_calls") or ():
        body += f"\n{call['function']['name']}({call['function']['arguments']})"
    yield _panel(f"{number} {role}", facts, body, role)


def _panel(title: str, facts: list[str], body: str, role: str) -> Panel:
    title += f" ({', '.join(facts)})" if facts else ""
    return Panel(Text(printable(body)), title=title, title_align="left", border_style=BORDER.get(role, "white"))


def _verdict(folder: Path, rollout: Mapping[str, Any]) -> Iterator[RenderableType]:
    reason = f" ({printable(rollout['reason'])})" if rollout["reason"] else ""
    yield Text(f"ended: {rollout['exit_status']}: {end_words(rollout['exit_status'])}{reason}")
    graded = (folder / "grade.json").exists()
    grade = read_json(folder / "grade.json") if graded else None
    tests = read_tests(folder) if graded else None
    if rollout["fault"]:
        message = printable(rollout["fault"]["message"])
        yield Text(f"lost to infrastructure ({rollout['fault']['boundary']}): {message}", "magenta")
    if grade is None:
        yield Text("not graded", "dim")
        return
    yield Text(f"graded: {grade['outcome']}  {printable(grade['cause'])}".rstrip(), STYLE[Outcome(grade["outcome"])])
    if why := cause(rollout, grade, tests):
        yield Text(f"cause: {printable(why)}")
    if tests is None:
        return
    yield Text(f"FAIL_TO_PASS: {tests.fixed} passed, {len(tests.not_fixed)} failed")
    yield Text(f"PASS_TO_PASS: {tests.kept} passed, {len(tests.broken)} failed")
    for name, lines in failing(folder, tests):
        yield Text(f"  failed {printable(name)}", "red")
        yield from (Text(f"    {printable(line)}", "dim") for line in lines)
