"""The gate in command of a run: the candidate is rolled out in the gate's order, no further than the verdict needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.evaluate import choose, open_run, perform
from commands.serving import connect, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from harness.compare.gate import Gate
    from harness.compare.gate_config import GateConfig
    from harness.compare.gate_report import GateReport
    from harness.compare.gate_stored import Options
    from harness.config import RunConfig
    from harness.run.store import Event, RunStore


def candidate_config(
    baseline: Path, *, checkpoint: str | None, registry: Path | None, agent: str | None, arm: str | None
) -> "RunConfig":
    """The baseline's own settings with another policy: what differs between the arms is that alone."""
    from harness.config import RunConfig
    from harness.errors import ConfigError
    from harness.run.store import read_json

    if not (baseline / "run.json").is_file():
        raise ConfigError(f"to run a candidate, --baseline must be a run folder; {baseline} has no run.json")
    known: dict[str, Any] = read_json(baseline / "run.json")["config"]
    if checkpoint and len(find(checkpoint, registry)) > 1:
        raise ConfigError(f"{checkpoint} names several steps of a series; gate one at a time")
    changed = {
        **known,
        "checkpoint": checkpoint or "",
        "agent": agent or known["agent"],
        "arm": arm or checkpoint or agent or "candidate",
    }
    return RunConfig.load(defaults=changed)


def gate_live(
    baseline: Path,
    gate_config: "GateConfig",
    options: "Options",
    run_config: "RunConfig",
    *,
    seeds: int,
    out: Path | None,
    registry: Path | None,
    endpoints: "Sequence[str]",
    model: str | None,
    workers: int,
    grade_workers: int,
    console: "Console",
) -> "GateReport":
    """Run the candidate until the gate decides; the same call again continues. Returns the gate's report.

    Raises DriftFault before anything is run when the candidate would differ from the baseline in more than the weights.
    """
    from agents.build import build
    from harness.compare import gate_sequence
    from harness.compare.calibrate import cached
    from harness.compare.gate import Gate
    from harness.compare.gate_design import design
    from harness.compare.gate_report import report
    from harness.compare.gate_table import check_pin, read_arm, refuse_drift
    from harness.compare.outcomes import combine, load_one

    stored = load_one(str(baseline))
    theirs = read_arm(stored, stored.arms[0], retries=gate_config.retries)
    check_pin(theirs, options.pin)
    run_config = run_config.model_copy(update={"infra_retries": gate_config.retries})
    folder = out or Path("results") / f"gate-{run_config.arm}-{run_config.digest}"
    sequence, number = None, None
    if options.sequence is not None:
        sequence = gate_sequence.open_sequence(options.sequence, theirs, gate_config.alphas[1])
        number = sequence.number_of_run(folder, retries=gate_config.retries)
        gate_config = gate_config.model_copy(update={"block_alpha": sequence.block_alpha(number)})
    selection = choose(run_config.dataset, console, ids=list(theirs.tasks))
    plan = design(
        theirs.tasks, seeds, baseline=theirs, stratified=gate_config.question == "rates", seed=gate_config.seed
    )
    gate = Gate(gate_config, plan)
    entry = find(run_config.checkpoint, registry)[0] if run_config.checkpoint else None
    log = folder / "server.log"
    with connect(
        endpoints, model, run_config.sampling, entry=entry, registry=registry, log=log, console=console
    ) as connected:
        agent = build(
            run_config.agent, tasks=selection.tasks, policy=connected.policy, options=run_config.agent_options
        )
        with open_run(folder, run_config, selection, agent, seeds, connected.fingerprint) as store:
            mine = load_one(str(folder))
            notes = refuse_drift(combine([stored, mine]), (theirs.name, run_config.arm), options.allow)
            for key in gate.order:
                _feed(gate, store, *key)
            if not gate.decided:
                perform(
                    store,
                    selection,
                    agent,
                    gate.order,
                    console,
                    workers=workers,
                    grade_workers=grade_workers,
                    release=connected.release,
                    watch=lambda event: _feed(gate, store, event["instance_id"], event["seed"]),
                )
    gate.finish("the run ended before a verdict")
    calibration = cached(gate_config, theirs, seeds) if options.calibrated else None
    found = report(
        gate,
        theirs,
        run_config.arm,
        calibration=calibration,
        number=number,
        notes=[f"accepted: {line}" for line in notes],
    )
    if options.sequence is not None and sequence is not None and number is not None:
        ours = read_arm(load_one(str(folder)), run_config.arm, retries=gate_config.retries)
        gate_sequence.record(
            options.sequence,
            sequence,
            ours,
            found.verdict,
            number=number,
            rollouts=found.rollouts,
            difference=found.difference,
        )
    return found


def _feed(gate: "Gate", store: "RunStore", instance_id: str, seed: int) -> bool:
    """Give the gate what the journal holds of a rollout, if that is final; whether the gate has decided."""
    from harness.types import Outcome

    progress = store.progress.get((instance_id, seed))
    if progress is None:
        return gate.decided
    rollout: Event = progress.rollout
    lost = rollout["fault"] is not None
    if (lost and rollout["attempt"] < store.config.infra_retries) or (not lost and progress.grade is None):
        return gate.decided  # still to be retried, or to be graded
    outcome = Outcome.ERROR if lost or progress.grade is None else Outcome(progress.grade["outcome"])
    gate.feed(
        instance_id,
        seed,
        None if outcome is Outcome.ERROR else outcome is Outcome.RESOLVED,
        tokens=rollout["prompt_tokens"] + rollout["completion_tokens"],
        gpu_seconds=rollout["model_seconds"],
    )
    return gate.decided
