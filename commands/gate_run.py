"""The gate in command of a run: the candidate is rolled out in the gate's order, no further than the verdict needs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.commands.evaluate import Selection, choose, open_run, perform
from aem_harness.commands.serving import card_defaults, connect, find

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.aem_checkpoints.registry import Entry
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.gate.config import GateConfig
    from aem_harness.harness.gate.design import Arm
    from aem_harness.harness.gate.gate import Gate
    from aem_harness.harness.gate.report import GateReport
    from aem_harness.harness.gate.sequence import Sequence as GateSequence
    from aem_harness.harness.gate.stored import Options
    from aem_harness.harness.run.store import Event, RunStore
    from aem_harness.harness.types import Agent


@dataclass(frozen=True)
class Live:
    """Where and with what an arm is run. `gpus` are those behind its servers, if they do not say so themselves."""

    seeds: int
    workers: int
    grade_workers: int
    out: Path | None = None
    registry: Path | None = None
    endpoints: Sequence[str] = ()
    model: str | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Side:
    """One arm that is run. A rollout holds `gpus`: those of its servers over the rollouts at a time, None: unknown."""

    role: str
    store: "RunStore"
    agent: "Agent"
    release: Callable[[], None]
    gpus: float | None


# --- settings ---------------------------------------------------------------------------------------------------------


def baseline_config(baseline: str, dataset: str | None, registry: Path | None) -> "RunConfig":
    """The settings of a baseline that is run afresh: those of a run folder, or of a registered checkpoint's card."""
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import ConfigError

    if (Path(baseline) / "run.json").is_file():
        return RunConfig.load(defaults=_settings(Path(baseline)))
    if not dataset:
        raise ConfigError(f"{baseline} is no run folder; to run a checkpoint of that name, name the tasks with --set")
    entry = _one(baseline, registry)
    return RunConfig.load(defaults=card_defaults(entry), dataset=dataset, checkpoint=entry.card.name)


def candidate_config(
    baseline: "RunConfig | Path", *, checkpoint: str | None, registry: Path | None, agent: str | None, arm: str | None
) -> "RunConfig":
    """The baseline's own settings with another policy: what differs between the arms is that alone."""
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import ConfigError

    known = _settings(baseline) if isinstance(baseline, Path) else baseline.model_dump(mode="json")
    if checkpoint:
        _one(checkpoint, registry)
    changed = {
        **known,
        "checkpoint": checkpoint or "",
        "agent": agent or known["agent"],
        "arm": arm or checkpoint or agent or "candidate",
    }
    config = RunConfig.load(defaults=changed)
    if config.arm == known["arm"]:
        raise ConfigError(f"both arms would be called {config.arm!r}; name the candidate with --arm")
    return config


def _settings(folder: Path) -> dict[str, Any]:
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.io import read_json

    if not (folder / "run.json").is_file():
        raise ConfigError(f"to run a candidate, --baseline must be a run folder; {folder} has no run.json")
    known: dict[str, Any] = read_json(folder / "run.json")["config"]
    return known


def _one(checkpoint: str, registry: Path | None) -> "Entry":
    from aem_harness.harness.errors import ConfigError

    entries = find(checkpoint, registry)
    if len(entries) > 1:
        raise ConfigError(f"{checkpoint} names several steps of a series; gate one at a time")
    return entries[0]


# --- a stored baseline ------------------------------------------------------------------------------------------------


def gate_live(
    baseline: Path, config: "GateConfig", options: "Options", run_config: "RunConfig", live: Live, console: "Console"
) -> "GateReport":
    """Run the candidate until the gate decides; the same call again continues. Returns the gate's report.

    Raises DriftFault, before anything is run where it can, when the arms differ in more than the weights.
    """
    from aem_harness.harness.compare.outcomes import combine, load_one
    from aem_harness.harness.gate.design import design
    from aem_harness.harness.gate.gate import CANDIDATE, Gate
    from aem_harness.harness.gate.sequence import open_sequence
    from aem_harness.harness.gate.stored import past_arms
    from aem_harness.harness.gate.table import check_pin, read_arm, refuse_drift

    stored = load_one(str(baseline))
    theirs = read_arm(stored, stored.arms[0], retries=config.retries)
    check_pin(theirs, options.pin)
    run_config = run_config.model_copy(update={"infra_retries": config.retries})
    folder = live.out or Path("results") / f"gate-{run_config.arm}-{run_config.digest}"
    sequence, number = None, None
    if options.sequence is not None:
        sequence = open_sequence(options.sequence, theirs.digest, config.alphas[1])
        number = sequence.number_of_run(folder, retries=config.retries)
        config = config.model_copy(update={"block_alpha": sequence.block_alpha(number)})
    selection = choose(run_config.dataset, console, ids=list(theirs.tasks))
    history = past_arms(options.history, stored, retries=config.retries)
    stratified = config.question == "rates"
    plan = design(theirs.tasks, live.seeds, baseline=theirs, history=history, stratified=stratified, seed=config.seed)
    gate = Gate(config, plan)

    def drift() -> list[str]:
        return refuse_drift(combine([stored, load_one(str(folder))]), (theirs.name, run_config.arm), options.allow)

    with opened(CANDIDATE, run_config, folder, selection, live, config, console) as side:
        drift()
        for key in gate.order:
            feed(gate, side, *key)
        if not gate.decided:
            perform(
                side.store,
                selection,
                side.agent,
                gate.order,
                console,
                workers=live.workers,
                grade_workers=live.grade_workers,
                release=side.release,
                watch=lambda event: feed(gate, side, event["instance_id"], event["seed"]),
            )
    notes = drift()  # once more: images are known only now
    return concluded(gate, theirs, run_config.arm, folder, options, sequence, number, notes)


# --- what both ways of running share ----------------------------------------------------------------------------------


@contextmanager
def opened(
    role: str,
    run_config: "RunConfig",
    folder: Path,
    selection: Selection,
    live: Live,
    config: "GateConfig",
    console: "Console",
) -> Iterator[Side]:
    """One arm, ready to run: its server is up, its folder open; both are closed with the block."""
    from aem_harness.agents.build import build
    from aem_harness.harness.errors import ConfigError

    entry = _one(run_config.checkpoint, live.registry) if run_config.checkpoint else None
    if config.budget is not None and config.budget.unit == "gpu_hours" and not _knows_gpus(entry, live):
        raise ConfigError(f"how many GPUs the server of {run_config.arm} has is not known; say it with --gpus")
    with connect(
        live.endpoints,
        live.model,
        run_config.sampling,
        entry=entry,
        registry=live.registry,
        log=folder / "server.log",
        console=console,
    ) as connected:
        agent = build(
            run_config.agent, tasks=selection.tasks, policy=connected.policy, options=run_config.agent_options
        )
        with open_run(folder, run_config, selection, agent, live.seeds, connected.fingerprint) as store:
            share = None if live.gpus is None else live.gpus / live.workers
            yield Side(role, store, agent, connected.release, share)


def _knows_gpus(entry: "Entry | None", live: Live) -> bool:
    from aem_harness.aem_checkpoints.command import find_program, gpus
    from aem_harness.aem_checkpoints.registry import Registry

    if live.gpus is not None or entry is None:
        return live.gpus is not None
    return gpus(entry, Registry(live.registry), None if live.endpoints else find_program()) is not None


def feed(gate: "Gate", side: Side, instance_id: str, seed: int) -> bool:
    """Give the gate what the journal holds of a rollout, if that is final; whether the gate has decided.

    It costs the GPU-seconds that its requests were charged, or with --gpus its wall time on its share of them.
    """
    from aem_harness.harness.types import Outcome

    progress = side.store.progress.get((instance_id, seed))
    if progress is None:
        return gate.decided
    rollout: Event = progress.rollout
    lost = rollout["fault"] is not None
    if (lost and rollout["attempt"] < side.store.config.infra_retries) or (not lost and progress.grade is None):
        return gate.decided  # still to be retried, or to be graded
    outcome = Outcome.ERROR if lost or progress.grade is None else Outcome(progress.grade["outcome"])
    gate.feed(
        instance_id,
        seed,
        None if outcome is Outcome.ERROR else outcome is Outcome.RESOLVED,
        arm=side.role,
        tokens=rollout["prompt_tokens"] + rollout["completion_tokens"],
        gpu_seconds=(rollout.get("gpu_seconds") or 0.0) if side.gpus is None else rollout["seconds"] * side.gpus,
    )
    return gate.decided


def concluded(
    gate: "Gate",
    baseline: "Arm",
    candidate: str,
    folder: Path,
    options: "Options",
    sequence: "GateSequence | None",
    number: int | None,
    notes: Sequence[str],
    surface: "Arm | None" = None,
) -> "GateReport":
    """The report of a gate whose run is over, recorded in its sequence. `folder` is the candidate's run.

    `surface` is what the gate is calibrated on, if not the baseline itself.
    """
    from aem_harness.harness.compare.outcomes import load_one
    from aem_harness.harness.errors import EnvironmentFault
    from aem_harness.harness.gate.calibrate import cached
    from aem_harness.harness.gate.report import report
    from aem_harness.harness.gate.sequence import record
    from aem_harness.harness.gate.table import read_arm

    gate.finish("the run ended before a verdict")
    if gate.consumed and gate.missing() == gate.consumed:
        raise EnvironmentFault(f"every rollout of {candidate} was lost to infrastructure; {folder} says to what")
    fresh = gate.design.baseline is None
    found = report(
        gate,
        baseline,
        candidate,
        calibration=cached(gate.config, surface or baseline, gate.design.seeds, fresh=fresh)
        if options.calibrated
        else None,
        number=number,
        notes=[f"accepted: {line}" for line in notes],
    )
    if options.sequence is not None and sequence is not None and number is not None:
        record(
            options.sequence,
            sequence,
            read_arm(load_one(str(folder)), candidate, retries=gate.config.retries),
            found.verdict,
            number=number,
            rollouts=found.rollouts,
            difference=found.difference,
        )
    return found
