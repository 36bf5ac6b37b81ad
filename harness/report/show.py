"""One rollout as a person reads it: the conversation, the patch, the verdict."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import read_json
from aem_harness.harness.report.live import STYLE
from aem_harness.harness.run.store import read_patch
from aem_harness.harness.types import Outcome

BORDER = {"system": "dim", "user": "blue", "assistant": "green", "tool": "cyan", "exit": "magenta"}


def rollout_view(run: Path, instance: str, seed: int) -> RenderableType:
    """The trajectory of `instance` (its id, or the unique end of one) at `seed`, with patch and grade."""
    folder = find_rollout(run, instance, seed)
    return Group(*_parts(folder))


def find_rollout(run: Path, instance: str, seed: int) -> Path:
    """The folder of a finished rollout; ConfigError says what there is where it is not."""
    if not (run / "run.json").exists():
        raise ConfigError(f"{run} is not a run folder: it has no run.json")
    known = sorted(path.name for path in (run / "rollouts").glob("*") if path.is_dir())
    matches = [name for name in known if name == instance] or [name for name in known if name.endswith(instance)]
    if len(matches) != 1:
        what = "matches several instances" if matches else "matches no instance"
        raise ConfigError(f"{instance} {what} of {run}; it has: {', '.join((matches or known)[:8]) or 'none yet'}")
    folder = run / "rollouts" / matches[0] / str(seed)
    if not folder.is_dir():
        seeds = sorted(path.name for path in folder.parent.glob("[0-9]*") if path.name.isdigit())
        raise ConfigError(
            f"{matches[0]} has no finished rollout with seed {seed}; finished: {', '.join(seeds) or 'none'}"
        )
    return folder


def _parts(folder: Path) -> Iterator[RenderableType]:
    rollout = read_json(folder / "rollout.json")
    yield Rule(f"{rollout['instance_id']}  seed {rollout['seed']}")
    for number, message in enumerate(_messages(folder, rollout["instance_id"])):
        yield _message(number, message)
    yield Rule("patch")
    patch = read_patch(folder / "patch.diff").encode("utf-8", "replace").decode()
    yield Syntax(patch, "diff", word_wrap=True, background_color="default") if patch.strip() else Text("(empty)", "dim")
    yield Rule("verdict")
    yield from _verdict(folder, rollout)


def _messages(folder: Path, instance_id: str) -> list[dict[str, Any]]:
    document = read_json(folder / f"{instance_id}.traj.json")
    if "messages" not in document:
        raise DataError(f"{folder / instance_id}.traj.json has no messages")
    messages: list[dict[str, Any]] = document["messages"]
    return messages


def _message(number: int, message: Mapping[str, Any]) -> RenderableType:
    content = message.get("content") or ""
    body = content if isinstance(content, str) else json.dumps(content, indent=1)
    for call in message.get("tool_calls") or ():
        body += f"\n{call['function']['name']}({call['function']['arguments']})"
    extra = message.get("extra", {})
    facts = [
        f"{extra[key]:.3g} {unit}" for key, unit in (("mean_entropy", "nats"), ("model_seconds", "s")) if extra.get(key)
    ]
    title = f"{number} {message['role']}" + (f" ({', '.join(facts)})" if facts else "")
    return Panel(Text(body), title=title, title_align="left", border_style=BORDER.get(message["role"], "white"))


def _verdict(folder: Path, rollout: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(f"ended: {rollout['exit_status']} {rollout['reason']}".rstrip())
    if rollout["fault"]:
        yield Text(f"lost to infrastructure ({rollout['fault']['boundary']}): {rollout['fault']['message']}", "magenta")
    if not (folder / "grade.json").exists():
        yield Text("not graded", "dim")
        return
    grade = read_json(folder / "grade.json")
    yield Text(f"graded: {grade['outcome']}  {grade['cause']}".rstrip(), STYLE[Outcome(grade["outcome"])])
    if (folder / "report.json").exists():
        (report,) = read_json(folder / "report.json").values()
        for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            lists = report.get("tests_status", {}).get(kind, {"success": [], "failure": []})
            failed = lists["failure"]
            yield Text(f"{kind}: {len(lists['success'])} passed, {len(failed)} failed")
            for name in failed[:20]:
                yield Text(f"  failed {name}", "red")
