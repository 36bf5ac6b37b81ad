"""The files by which other tools know a run: predictions, run report, log tree of `swebench`, integrity marks.

In the run's folder:

    predictions.jsonl                                   seed 0; predictions.seed<k>.jsonl for the others
    report.json                                         the official run report of seed 0; report.seed<k>.json
        audit.json                                          integrity marks of patches and logs, and the findings of
                                                            canaries
    logs/run_evaluation/<run_id>/run.json               what `swebench report` reads to find the dataset
    logs/run_evaluation/<run_id>/<arm>/<instance>       links to rollouts/<instance>/<seed>
    logs/run_evaluation/<run_id>/gold                   a link to <arm>: `swebench report` 5.0.2 looks for no other name

so that `swebench report <run_id>`, called in that folder, grades the run again from its logs.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aem_harness.harness.grading import heldout, official
from aem_harness.harness.grading.audit import Mark, audit_log, audit_patch
from aem_harness.harness.grading.predictions import write_predictions
from aem_harness.harness.grading.readings import audit_readings
from aem_harness.harness.instances.rows import to_row
from aem_harness.harness.io import read_json, write_json, write_json_lines
from aem_harness.harness.run import auditing
from aem_harness.harness.run.store import Key, Progress, read_patch
from aem_harness.harness.types import Outcome, Prediction, Task

logger = logging.getLogger(__name__)

COMPLETED = (Outcome.RESOLVED, Outcome.UNRESOLVED)


def write_reports(folder: Path, tasks: Sequence[Task], progress: Mapping[Key, Progress]) -> None:
    """Write (again) every official file of the run in `folder`, for each of its seeds.

    `tasks` is what the run was to cover; rollouts lost to a fault have no prediction.
    """
    run = read_json(folder / "run.json")
    run_id, arm = run["run_id"], run["arm"]
    chosen = {task.instance_id: task for task in tasks}
    marked: list[dict[str, Any]] = []
    for seed in sorted({seed for _, seed in progress} | {0}):
        suffix = f".seed{seed}" if seed else ""
        rollouts: dict[str, Progress] = {
            instance_id: found
            for (instance_id, rollout_seed), found in progress.items()
            if rollout_seed == seed and found.rollout["fault"] is None and instance_id in chosen
        }
        folders = {instance_id: folder / "rollouts" / instance_id / str(seed) for instance_id in rollouts}
        predictions = [
            Prediction(instance_id=name, model_name_or_path=arm, model_patch=read_patch(folders[name] / official.PATCH))
            for name in sorted(rollouts)
        ]
        empty = {prediction.instance_id for prediction in predictions if not prediction.model_patch}
        outcomes = {name: _outcome(found, name in empty) for name, found in rollouts.items()}
        write_predictions(folder / f"predictions{suffix}.jsonl", predictions)
        write_json(folder / f"report{suffix}.json", run_report(chosen, outcomes, folders))
        _link_logs(folder, f"{run_id}{suffix}", arm, list(chosen.values()), folders)
        for name, outcome in sorted(outcomes.items()):
            marks = integrity_marks(folders[name], chosen[name], outcome)
            marks += auditing.conduct_of(folders[name], rollouts[name].rollout, chosen[name])
            canary = auditing.stored(folders[name]) if outcome is Outcome.RESOLVED else None
            if marks or canary:
                marked.append(
                    {
                        "instance_id": name,
                        "seed": seed,
                        "outcome": outcome.value,
                        "canary": canary.state if canary else None,
                        "marks": [mark.model_dump() for mark in marks],
                    }
                )
    write_json(folder / "audit.json", marked)


def _outcome(state: Progress, empty: bool) -> Outcome:
    """The official tools count an ungraded prediction as an error, unless it is empty."""
    if state.grade:
        return Outcome(state.grade["outcome"])
    return Outcome.EMPTY_PATCH if empty else Outcome.ERROR


def integrity_marks(rollout: Path, task: Task, outcome: Outcome) -> list[Mark]:
    """The marks of one graded rollout: of its patch, and of its log where that resolved the instance."""
    marks = audit_patch(read_patch(rollout / official.PATCH), task)
    log = rollout / official.TEST_OUTPUT
    if outcome is Outcome.RESOLVED and log.exists():
        marks += audit_log(log.read_text(encoding="utf-8", errors="replace"), task)
        marks += auditing.marks_of(rollout)
    if log.exists():
        notes = rollout / official.NOTES
        said = notes.read_text(encoding="utf-8", errors="replace") if notes.exists() else ""
        marks += audit_readings(log.read_text(encoding="utf-8", errors="replace"), said, task)
    return marks


def run_report(
    instance_ids: Iterable[str], outcomes: Mapping[str, Outcome], folders: Mapping[str, Path]
) -> dict[str, Any]:
    """The run report (schema 2) as `swebench.harness.reporting.make_run_report` (5.0.2) writes it without an engine.

    `outcomes` of what has a prediction; `folders` hold the logs from which swebench guesses the cause of a failure.
    """
    ids = sorted(instance_ids)
    of: dict[Outcome, list[str]] = {kind: [name for name in ids if outcomes.get(name) is kind] for kind in Outcome}
    completed = sorted(name for kind in COMPLETED for name in of[kind])
    errors = sorted(of[Outcome.ERROR] + of[Outcome.NOT_APPLIED] + of[Outcome.TEST_TIMEOUT])
    guesses = {
        name: guess
        for name in sorted(of[Outcome.UNRESOLVED] + errors)
        if (guess := official.guess_failure(folders[name]))
    }
    infrastructure = [name for name, guess in guesses.items() if guess.environment]
    ambiguous = [name for name, guess in guesses.items() if not guess.environment]
    return {
        "total_instances": len(ids),
        "submitted_instances": len(outcomes),
        "completed_instances": len(completed),
        "resolved_instances": len(of[Outcome.RESOLVED]),
        "unresolved_instances": len(of[Outcome.UNRESOLVED]),
        "infra_failure_instances": len(infrastructure),
        "ambiguous_failure_instances": len(ambiguous),
        "empty_patch_instances": len(of[Outcome.EMPTY_PATCH]),
        "error_instances": len(errors),
        "completed_ids": completed,
        "incomplete_ids": [name for name in ids if name not in outcomes],
        "empty_patch_ids": of[Outcome.EMPTY_PATCH],
        "submitted_ids": sorted(outcomes),
        "resolved_ids": of[Outcome.RESOLVED],
        "unresolved_ids": of[Outcome.UNRESOLVED],
        "infra_failure_ids": infrastructure,
        "ambiguous_failure_ids": ambiguous,
        "failure_reasons": {name: guess.reason for name, guess in guesses.items()},
        "error_ids": errors,
        "schema_version": 2,
    }


def _link_logs(folder: Path, run_id: str, arm: str, tasks: Sequence[Task], folders: Mapping[str, Path]) -> None:
    """The log tree that swebench expects, as links to the rollouts, and what names the dataset."""
    logs = folder / "logs" / "run_evaluation" / run_id
    model = arm.replace("/", "__")
    (logs / model).mkdir(parents=True, exist_ok=True)
    for instance_id, rollout in folders.items():
        _link(logs / model / instance_id, Path("../../../..") / rollout.relative_to(folder))
    if model != "gold":
        _link(logs / "gold", Path(model))
    write_json(logs / "run.json", {"dataset": _dataset(logs, tasks), "split": "test", "task_repo": None})


def _dataset(logs: Path, tasks: Sequence[Task]) -> str:
    """A name under which swebench finds the rows: that of the hub, or a file with the rows as graded."""
    name = tasks[0].dataset
    if "/" in name and not any(task.provenance for task in tasks):
        return name
    rows = logs / "dataset.jsonl"
    write_json_lines(rows, map(to_row, tasks))
    return str(rows.relative_to(logs.parents[2]))


def _link(link: Path, target: Path) -> None:
    """Make a link where there is none.

    Nothing is lost where that cannot be: in a copy of the run that has a folder in its place, or on a file system
    without links. `swebench report` alone then finds what was copied, or less.
    """
    if link.is_symlink():
        return
    try:
        link.symlink_to(target)
    except OSError as error:
        logger.warning("%s is no link to %s (%s)", link, target, error.strerror)


def audit_run(
    folder: Path,
    tasks: Sequence[Task],
    progress: Mapping[Key, Progress],
    how: auditing.Regrading,
    *,
    share: float = auditing.SHARE,
    again: bool = True,
) -> auditing.Audited | None:
    """Grade the resolved rollouts of a run again with canaries (harness/run/auditing.py), and write its audit.json.

    `progress` as the run's journal has it; `share` in [0, 1]; `again`: also what an earlier attempt found nothing of.
    Returns None where no rollout was chosen.
    """
    known = {task.instance_id: task for task in tasks}
    write_reports(folder, tasks, progress)
    marked = auditing.marked_keys(folder)
    resolved = [key for key in auditing.resolved_keys(progress) if key[0] in known]
    keys = auditing.chosen(folder.name, resolved, marked, share)
    auditing.regrade_run(folder, known, keys, how, again=again)
    write_reports(folder, tasks, progress)
    found = auditing.summary(folder, progress, marked)
    if found:
        write_json(folder / auditing.SUMMARY, {"share": share, **found.model_dump(mode="json")})
    return found


def run_variants(
    folder: Path, tasks: Sequence[Task], progress: Mapping[Key, Progress], how: auditing.Regrading
) -> list[Key]:
    """Run the held-out variants with every resolved rollout whose instance has any, and write audit.json anew.

    Returns those rollouts; what was found of them is kept, and not looked for again.
    """
    known = {task.instance_id: task for task in tasks if (made := heldout.stored(task)) and made.variants}
    keys = [key for key in auditing.resolved_keys(progress) if key[0] in known]
    auditing.regrade_run(folder, known, keys, how, name=auditing.VARIANT)
    write_reports(folder, tasks, progress)
    return keys
