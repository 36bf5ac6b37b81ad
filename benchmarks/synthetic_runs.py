"""Run folders of any size, made through the real store, to try reports and comparisons of whole benchmarks on.

Rollouts are drawn, not run: each task has a rate of its own, each rollout a length, tokens, entropies that fall with
the turn, a patch and a log. Nothing here is a result.
"""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from aem_harness.harness.config import RunConfig
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.run.store import (
    GRADE_EVENT,
    ROLLOUT_EVENT,
    Event,
    RunStore,
    now,
    read_journal,
    write_patch,
)
from aem_harness.harness.run.trajectory import TrajectoryWriter
from aem_harness.harness.types import ExitStatus, Outcome

REPOS = {"astropy/astropy": 22, "django/django": 231, "matplotlib/matplotlib": 34, "psf/requests": 8,
         "pydata/xarray": 22, "pylint-dev/pylint": 10, "pytest-dev/pytest": 19, "scikit-learn/scikit-learn": 32,
         "sphinx-doc/sphinx": 44, "sympy/sympy": 75, "mwaskom/seaborn": 2, "pallets/flask": 1}  # fmt: skip
DIFFICULTIES = ("<15 min fix", "15 min - 1 hour", "1-4 hours")
VERSIONS = {"aem": "0.1.0", "swebench": "swebench 5.0.2"}
COMMANDS = (
    "ls", "cat src/module_{n}.py", "grep -rn name_{n} src", "python -m pytest tests/test_{n}.py -q", "git diff",
    "sed -i 's/old_{n}/new_{n}/' src/module_{n}.py", "python - <<'EOF'\nprint({n})\nEOF",
)  # fmt: skip


def make_run(
    folder: Path, arm: str, *, tasks: int = 500, seeds: int = 8, gain: float = 0.0, turns: int = 40, marked: int = 3
) -> Path:
    """A finished run of `tasks` x `seeds` rollouts; `gain` is added to every task's rate, which is otherwise common."""
    names = instance_ids(tasks)
    common, own = random.Random(1), random.Random(arm)
    rates = [min(max(common.betavariate(0.25, 0.34) + gain, 0.0), 1.0) for _ in names]
    with RunStore(folder, RunConfig(arm=arm, agent="bash", dataset="verified"), _facts(names, seeds)) as store:
        for name, rate in zip(names, rates, strict=True):
            for seed in range(seeds):
                _rollout(store, name, seed, own.random() < rate, own, turns)
    suspects = list(names)[:marked]
    mark = {"name": "runner hook", "file": "src/conftest.py", "why": "adds a hook by which outcomes can be rewritten"}
    write_json(
        folder / "audit.json",
        [{"instance_id": n, "seed": 0, "outcome": "resolved", "marks": [{**mark, "grave": True}]} for n in suspects],
    )
    return folder


def linked(source: Path, folder: Path, copies: int) -> Path:
    """A run of `copies` times as many tasks: hard links to the files of `source`, under other names."""
    known = read_json(source / "run.json")
    names = {name: [f"{name}{number:02d}" for number in range(copies)] for name in known["plan"]["instances"]}
    tasks = {new: known["tasks"][name] for name, others in names.items() for new in others}
    plan = {**known["plan"], "instances": list(tasks)}
    (folder / "rollouts").mkdir(parents=True)
    write_json(folder / "run.json", {**known, "run_id": folder.name, "plan": plan, "tasks": tasks})
    write_json(folder / "audit.json", [])
    with (folder / "journal.jsonl").open("w") as journal:
        for event in read_journal(source):
            for new in names[event["instance_id"]]:
                _link(source, folder, event, new, journal)
    return folder


def _link(source: Path, folder: Path, event: Event, new: str, journal: IO[str]) -> None:
    """One event and the files that it speaks of, as those of the instance `new`."""
    name, seed = event["instance_id"], str(event["seed"])
    names = {file: new + file.removeprefix(name) if file.startswith(name) else file for file in event["files"]}
    there = folder / "rollouts" / new / seed
    there.mkdir(parents=True, exist_ok=True)
    for file, renamed in names.items():
        (there / renamed).hardlink_to(source / "rollouts" / name / seed / file)
    files = {names[file]: proof for file, proof in event["files"].items()}
    line = json.dumps({**event, "instance_id": new, "files": files})
    (there / (ROLLOUT_EVENT if event["event"] == "rollout" else GRADE_EVENT)).write_text(line)
    journal.write(line + "\n")


def instance_ids(tasks: int) -> Mapping[str, tuple[str, str]]:
    """Ids in the form of SWE-bench, with the repositories' shares of Verified: id -> (repository, difficulty)."""
    rng = random.Random(0)
    total = sum(REPOS.values())
    out: dict[str, tuple[str, str]] = {}
    for repo, share in REPOS.items():
        for number in range(max(1, round(tasks * share / total))):
            out[f"{repo.replace('/', '__')}-{1000 + number}"] = repo, rng.choice(DIFFICULTIES)
    return dict(list(out.items())[:tasks])


def _facts(names: Mapping[str, tuple[str, str]], seeds: int) -> dict[str, object]:
    return {
        "plan": {"instances": list(names), "seeds": seeds},
        "tasks": {name: {"repo": repo, "difficulty": difficulty} for name, (repo, difficulty) in names.items()},
        "agent": {"kind": "bash", "prompts": {"name": "bash", "version": 1}},
        "dataset": {"name": "verified", "digest": "synthetic", "n": len(names)},
        "versions": VERSIONS,
        "fingerprint": {},
    }


def _rollout(store: RunStore, name: str, seed: int, resolved: bool, rng: random.Random, turns: int) -> None:
    scratch = store.scratch(name, seed)
    writer = TrajectoryWriter(scratch, name)
    writer.message({"role": "system", "content": "You are a software engineer who works through a bash shell."})
    writer.message({"role": "user", "content": f"Resolve this issue of {name}:\n\n" + "It is wrong. " * 120})
    for turn in range(max(2, round(rng.lognormvariate(0, 0.5) * turns))):
        _turn(writer, turn, rng)
    fault = rng.random() < 0.002
    status = ExitStatus.SUBMITTED if rng.random() < 0.93 else ExitStatus.STEP_LIMIT
    change = _change(rng) if resolved or rng.random() < 0.95 else ""
    writer.finish(status, change)
    write_patch(scratch / "patch.diff", change)
    event = {
        "event": "rollout", "instance_id": name, "seed": seed, "attempt": 0, "exit_status": status.value, "reason": "",
        **writer.summary.facts(), "seconds": round(rng.lognormvariate(6, 0.5), 1), "patch_bytes": len(change),
        "image_digest": "", "fault": {"boundary": "environment", "message": "engine gone"} if fault else None,
        "at": now(),
    }  # fmt: skip
    if not fault:
        outcome = Outcome.RESOLVED if resolved else Outcome.UNRESOLVED if change else Outcome.EMPTY_PATCH
        (scratch / "test_output.txt").write_text("".join(f"PASSED tests/test_a.py::test_{i}\n" for i in range(200)))
        status_of = {"success": ["test_a"] if resolved else [], "failure": [] if resolved else ["test_a"]}
        tests = {"FAIL_TO_PASS": status_of, "PASS_TO_PASS": {"success": ["test_b"], "failure": []}}
        write_json(scratch / "report.json", {name: {"resolved": resolved, "tests_status": tests}})
    store.finish_rollout(scratch, event)
    if not fault:
        grade = {"event": "grade", "instance_id": name, "seed": seed, "attempt": 0, "outcome": outcome.value,
                 "cause": "", "seconds": 30.0, "versions": {"grader": "swebench 5.0.2"}, "at": now()}  # fmt: skip
        store.finish_grade(grade)


def _turn(writer: TrajectoryWriter, turn: int, rng: random.Random) -> None:
    command = rng.choice(COMMANDS).format(n=rng.randrange(30))
    extra = {
        "actions": [{"command": command}],
        "prompt_tokens": 1500 + 400 * turn,
        "completion_tokens": rng.randrange(40, 400),
        "model_seconds": round(rng.uniform(1, 9), 2),
        "mean_entropy": max(0.02, rng.gauss(0.42 - 0.004 * turn, 0.08)),
        "surprisal": rng.uniform(10, 90),
        "malformed": rng.random() < 0.01,
    }
    text = f"The next thing to look at is number {turn}. " + "It may be the cause. " * rng.randrange(1, 8)
    writer.message({"role": "assistant", "content": f"{text}\n\n```bash\n{command}\n```", "extra": extra})
    lines = "".join(f"src/module_{rng.randrange(99)}.py:{i}: name_{rng.randrange(999)} = value\n" for i in range(25))
    output = f"<returncode>0</returncode>\n<output>\n{lines}</output>"
    writer.message({"role": "user", "content": output, "extra": {"tool_seconds": 0.3}})


def _change(rng: random.Random) -> str:
    n = rng.randrange(30)
    body = "".join(f"+    line_{rng.randrange(999)} = {i}\n" for i in range(rng.randrange(1, 12)))
    return (
        f"diff --git a/src/module_{n}.py b/src/module_{n}.py\n--- a/src/module_{n}.py\n+++ b/src/module_{n}.py\n"
        f"@@ -10,2 +10,{1 + body.count(chr(10))} @@ def f():\n     a = 1\n-    b = 2\n{body}"
    )
