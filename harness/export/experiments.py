"""A submission folder of the SWE-bench experiments repository: predictions, logs, trajectories, results, metadata.

One seed only: the leaderboard counts one attempt at each task. `metadata.yaml` leaves to you what a run does not know
(authors, site, report); the checklist of that repository says what else it wants.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, plain
from aem_harness.harness.io import write_json, write_text
from aem_harness.harness.types import Outcome

LOGS = ("patch.diff", "report.json", "test_output.txt", "eval.sh", "run_instance.log")


def write(run: ExportedRun, out: Path) -> Written:
    rollouts = list(run.rollouts())
    if len(seeds := {one.seed for one in rollouts}) > 1:
        raise ConfigError(f"a submission holds one attempt at each task and the run has {len(seeds)} seeds: add --seed")
    kept = [one for one in rollouts if one.event["fault"] is None]
    out.mkdir()
    lines = [
        {"instance_id": one.instance_id, "model_name_or_path": out.name, "model_patch": plain(one.patch())}
        for one in kept
    ]
    write_text(out / "all_preds.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for one in kept:
        _files(one, out)
    (out / "results").mkdir()
    write_json(out / "results" / "results.json", _results(run, rollouts))
    write_text(out / "metadata.yaml", _metadata(run))
    write_text(out / "README.md", _readme(run, kept))
    lost = len(rollouts) - len(kept)
    return Written(len(kept), lost, "lost to infrastructure; results.json lists them under no_logs")


def _files(one: ExportedRollout, out: Path) -> None:
    logs = out / "logs" / one.instance_id
    logs.mkdir(parents=True)
    for name in LOGS:
        if (one.folder / name).is_file():
            shutil.copyfile(one.folder / name, logs / name)
    trajectory = one.folder / f"{one.instance_id}.traj.json"
    if trajectory.is_file():
        (out / "trajs").mkdir(exist_ok=True)
        shutil.copyfile(trajectory, out / "trajs" / trajectory.name)


def _results(run: ExportedRun, rollouts: list[ExportedRollout]) -> dict[str, list[str]]:
    """The lists that the repository's own analysis makes; a task that has no verdict is in `no_logs`."""
    planned = set(run.facts["plan"]["instances"])
    scored = {one.instance_id: one.outcome for one in rollouts if one.resolved is not None}
    return {
        "no_generation": sorted(name for name, outcome in scored.items() if outcome is Outcome.EMPTY_PATCH),
        "no_logs": sorted(planned - set(scored)),
        "resolved": sorted(name for name, outcome in scored.items() if outcome is Outcome.RESOLVED),
    }


def _metadata(run: ExportedRun) -> str:
    import yaml

    document: dict[str, Any] = {
        "info": {"name": run.arm, "authors": "", "site": "", "report": ""},
        "tags": {
            "checked": False,
            "model": [run.model],
            "org": [],
            "os_model": False,
            "os_system": False,
            "system": {"attempts": "1"},
        },
    }
    return yaml.safe_dump(document, sort_keys=False)


def _readme(run: ExportedRun, kept: list[ExportedRollout]) -> str:
    resolved = sum(one.resolved is True for one in kept)
    planned = len(run.facts["plan"]["instances"])
    versions = ", ".join(f"{name} {version}" for name, version in run.facts["versions"].items())
    dataset = run.facts["dataset"]
    return (
        f"# {run.arm}\n\nModel: {run.model}\n\nResolved: {resolved} of {planned} ({100 * resolved / planned:.1f} %), "
        f"one attempt at each task.\n\nDataset: {dataset['name']} ({dataset['digest'][:12]}). Versions: {versions}.\n"
    )
