"""A gate inside training: every so many steps the policy is gated against the one that training started from.

The trainers know only a `Watcher`: they hand it a checkpoint at a step that is due, and it raises where training is to
stop. What decides is built on top of them (`api/training.py`), as the gate runs agents in containers.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from aem_harness.harness.errors import EXIT_BLOCK, AemError
from aem_harness.harness.types import Record

Watcher = Callable[[int, Path], None]  # step and folder of the checkpoint; raises Regressed to stop the training
HELD = "checkpoints"  # folder of a run: the checkpoints that were gated, step-N each
GATES = "gates"  # folder of a run: the runs of its gates, their ledger and their sequence
VERDICTS = "gates.jsonl"
# What an engine saves beside a policy to go on from; it is not served.
_OF_THE_TRAINER = ("optimizer.*", "scheduler.*", "rng_state*", "trainer_state.json", "training_args.bin", "scaler.*")


class GateSettings(Record):
    """When the policy is gated, on what, and what happens when it has become worse.

    `baseline` is a stored run on the same instances; without it the policy that training starts from is run first.
    `block_alpha` is shared by all gates of the run: it bounds the chance that any of them blocks an equal policy.
    """

    every: int = Field(gt=0, description="steps")
    set: str = Field(description="held-out instances: a name or a file, as aem run --set")
    slice: str = Field("", description="Python slice of them")
    baseline: str = ""
    seeds: int = Field(4, gt=0)
    tier: Literal["smoke", "nightly", "release"] = "nightly"
    margin: float | None = Field(None, gt=0, lt=1, description="fraction; None: the tier's")
    alpha: float | None = Field(None, gt=0, lt=0.5)
    budget: str = Field("", description="as aem gate --budget: 800, 20Mtok, 12gpuh")
    workers: int = Field(4, gt=0)
    on_regression: Literal["stop", "mark"] = "stop"

    def steps(self, last: int) -> list[int]:
        """The steps at which a run of `last` steps is gated; the last one always is."""
        return sorted({*range(self.every, last + 1, self.every), last})


class GateRecord(Record):
    """One gate of a training run, as `gates.jsonl` keeps it."""

    step: int
    checkpoint: str
    verdict: Literal["PASS", "BLOCK", "INCONCLUSIVE"]
    difference: float
    rollouts: int
    reason: str
    at: str


class Regressed(AemError):
    """The policy has become worse than the one that training started from, and the settings say to stop."""

    exit_code = EXIT_BLOCK


def verdicts(out: Path) -> list[GateRecord]:
    """The gates of a run so far, in order of step."""
    file = out / VERDICTS
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []  # a torn last line is no verdict
    return sorted((GateRecord.model_validate(json.loads(line)) for line in lines if line), key=lambda one: one.step)


def due(watch: GateSettings | None, step: int, last: int, out: Path) -> bool:
    """Whether a step is to be gated and has not been."""
    return watch is not None and step in watch.steps(last) and step not in {one.step for one in verdicts(out)}


def refuse_stopped(watch: GateSettings | None, out: Path) -> None:
    """Raise Regressed for a run that a gate has stopped, unless it may now go on all the same."""
    blocked = [one for one in verdicts(out) if one.verdict == "BLOCK"]
    if watch and watch.on_regression == "stop" and blocked:
        raise Regressed(stopped(blocked[-1], out))


def stopped(last: GateRecord, out: Path) -> str:
    """What is said when a gate stops a training."""
    good = [one.checkpoint for one in verdicts(out) if one.verdict == "PASS"]
    last_good = f"; the last one that passed is {good[-1]}" if good else ""
    return (
        f"step {last.step} is worse than the start by {-100 * last.difference:.1f} points ({last.reason}): training is "
        f"stopped{last_good}; to continue anyway: -c gate.on_regression=mark --resume"
    )


def held(saved: Path, out: Path, step: int) -> Path:
    """A copy of an engine's checkpoint that the engine will not remove: what is served of it, in the run's folder."""
    folder = out / HELD / f"step-{step}"
    if not folder.is_dir():
        half = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(saved, half, ignore=shutil.ignore_patterns(*_OF_THE_TRAINER))
        half.rename(folder)
    return folder


def worst(found: Iterable[GateRecord]) -> str:
    """The verdict that counts for a whole run: BLOCK where there is one."""
    words = {one.verdict for one in found}
    return next((word for word in ("BLOCK", "INCONCLUSIVE", "PASS") if word in words), "")
