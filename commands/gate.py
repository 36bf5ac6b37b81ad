"""`aem gate`: PASS, BLOCK or INCONCLUSIVE, as early as can be; `aem calibrate`: the gate against itself."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aem_harness.commands.options import EndsFile, grouped

if TYPE_CHECKING:
    from aem_harness.harness.gate.config import GateConfig

RUN = "A candidate that is run"  # panel of the help

GATE_EXAMPLES = """
Examples:

  aem gate --from outcomes.csv --baseline step-0 --candidate step-200 --margin 3

  aem gate --baseline results/base --candidate results/step-200 --tier nightly --sequence gates.json --junit gate.xml

  aem gate --from outcomes.csv --baseline base --candidate new --budget 20Mtok --pin sha256:5f1c...

  aem gate --baseline results/base --checkpoint step-200 --seeds 4       run the candidate only as far as needed

  aem gate --fresh --baseline step-0 --checkpoint step-200 --set verified      run both, pair by pair

Exit codes: 0 PASS, 1 BLOCK, 2 INCONCLUSIVE, 3 no verdict (infrastructure, or arms that differ in more than the
weights), 4 usage.
"""
CALIBRATE_EXAMPLES = """
Examples:

  aem calibrate --from outcomes.csv --baseline step-0 --margin 3 --seeds 4

  aem calibrate --surface deepswe --tasks 500 --seeds 4 --trials 2000
"""


class Tier(StrEnum):
    smoke = "smoke"
    nightly = "nightly"
    release = "release"


class Question(StrEnum):
    rates = "rates"
    outcomes = "outcomes"


Sources = Annotated[
    list[str] | None,
    typer.Option("--from", help="Outcomes: a CSV, a run folder, or what `aem import` reads; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass
class Asked:
    """What is asked of a gate."""

    margin: Annotated[float | None, typer.Option(help="Points of drop that are tolerated (default 3; smoke 10).")] = (
        None
    )
    block_margin: Annotated[
        float | None,
        typer.Option(help="Points: BLOCK as soon as the drop is shown to exceed this (default: the margin)."),
    ] = None
    alpha: Annotated[
        float | None, typer.Option(help="Error rate of PASS and of BLOCK (default 0.05; release 0.025).")
    ] = None
    tier: Annotated[Tier, typer.Option(help="Preset: smoke, nightly (decides early) or release (one look).")] = (
        Tier.nightly
    )
    question: Annotated[
        Question | None, typer.Option("--question", help="True resolve rates (default), or the full table of outcomes.")
    ] = None
    budget: Annotated[str | None, typer.Option(help="Most to spend: 800 (rollouts), 20Mtok or 12gpuh.")] = None
    futility: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99,
            help="Stop INCONCLUSIVE when the chance of a verdict falls below this share of its start; 0 never.",
        ),
    ] = None

    launch_sd: Annotated[
        float | None, typer.Option(min=0, help="Points: standard deviation of a rate from launch to launch, if known.")
    ] = None

    def config(self, **settings: Any) -> "GateConfig":
        from aem_harness.harness.gate.config import Budget, configure

        return configure(
            self.tier.value,
            margin=None if self.margin is None else self.margin / 100,
            block_margin=None if self.block_margin is None else self.block_margin / 100,
            alpha=self.alpha,
            question=self.question.value if self.question else None,
            budget=Budget.parse(self.budget) if self.budget else None,
            futility=self.futility,
            launch_sd=None if self.launch_sd is None else self.launch_sd / 100,
            **settings,
        )


@dataclass
class Arms:
    """The arms, and what is done about differences between them."""

    baseline: Annotated[
        str,
        typer.Option(help="Baseline: an arm of --from, a run folder or file, or with --fresh also a checkpoint."),
    ]
    candidate: Annotated[
        str | None, typer.Option(help="Candidate, likewise; without it, a candidate is run as far as needed.")
    ] = None
    sources: Sources = None
    history: Annotated[
        list[str] | None,
        typer.Option(help="Past checkpoint, an arm or a run folder: improves the order; may be repeated."),
    ] = None
    fresh: Annotated[
        bool, typer.Option("--fresh", help="The baseline is, or was, run beside the candidate, pair by pair.")
    ] = False
    common: Annotated[bool, typer.Option("--common", help="Leave out tasks that only one arm has.")] = False
    audited: Annotated[
        bool,
        typer.Option("--audited", help="Rollouts that canaries saw to tamper with tests count as failures."),
    ] = False
    ends: EndsFile = None
    pin: Annotated[str | None, typer.Option(help="Refuse unless the baseline's outcomes have this digest.")] = None
    allow: Annotated[
        list[str] | None, typer.Option(help="Difference between the arms to accept, for example grader.")
    ] = None
    registered: Annotated[
        Path | None, typer.Option(help="A plan of `aem plan --register`: say first whether the gate is as registered.")
    ] = None
    order_seed: Annotated[int | None, typer.Option(help="Seed of the order of the rollouts (default 0).")] = None
    orders: Annotated[
        int | None,
        typer.Option(help="Orders or runs in which this candidate may be gated, planned before the first (default 1)."),
    ] = None
    min_power: Annotated[
        float,
        typer.Option(min=0, max=1, help="Refuse if the chance to clear an equal checkpoint is less (0.8 is 80 %)."),
    ] = 0.0
    retries: Annotated[
        int | None, typer.Option(help="Repeats allowed to a rollout lost to infrastructure, in both arms (default 1).")
    ] = None


@dataclass
class Run:
    """How a candidate is run."""

    checkpoint: Annotated[
        str | None, typer.Option(help="Run this registered checkpoint as the candidate.", rich_help_panel=RUN)
    ] = None
    agent: Annotated[
        str | None, typer.Option(help="Run this agent as the candidate (default: baseline's).", rich_help_panel=RUN)
    ] = None
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="The candidate is behind this OpenAI-compatible server; repeatable.", rich_help_panel=RUN),
    ] = None
    model: Annotated[str | None, typer.Option(help="Model name at the endpoint.", rich_help_panel=RUN)] = None
    baseline_endpoint: Annotated[
        list[str] | None,
        typer.Option(help="The same for a fresh baseline (default: --endpoint).", rich_help_panel=RUN),
    ] = None
    baseline_model: Annotated[str | None, typer.Option(help="Its model name at the endpoint.", rich_help_panel=RUN)] = (
        None
    )
    dataset: Annotated[
        str | None, typer.Option("--set", help="Tasks, where the baseline is a checkpoint.", rich_help_panel=RUN)
    ] = None
    arm: Annotated[str | None, typer.Option(help="Label of a candidate that is run.", rich_help_panel=RUN)] = None
    seeds: Annotated[int, typer.Option("--seeds", "-k", min=1, help="Most rollouts a task.", rich_help_panel=RUN)] = 4
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run (default: results/gate-...).", rich_help_panel=RUN),
    ] = None
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Rollouts at a time.", rich_help_panel=RUN)] = 4
    grade_workers: Annotated[int, typer.Option(min=1, help="Gradings at a time.", rich_help_panel=RUN)] = 2
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs behind an arm's server, where it does not say so itself.", rich_help_panel=RUN),
    ] = None
    canary: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of resolved rollouts without marks graded again with canaries (with --audited: all).",
            rich_help_panel=RUN,
        ),
    ] = 0.05
    no_canary: Annotated[
        bool, typer.Option("--no-canary", help="Grade nothing again with canaries.", rich_help_panel=RUN)
    ] = False
    registry: Annotated[
        Path | None, typer.Option(help="Folder of checkpoint cards, searched first.", rich_help_panel=RUN)
    ] = None


@dataclass
class Output:
    """What a gate keeps and leaves behind."""

    sequence: Annotated[
        Path | None, typer.Option(help="State file of a sequence of gates that share one false-alarm rate.")
    ] = None
    window: Annotated[
        int | None, typer.Option(min=1, help="Gates in a row that share the false-alarm rate (default 7).")
    ] = None
    ledger: Annotated[
        Path | None, typer.Option(help="File in which every gate is written down (default: one a user).")
    ] = None
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None
    summary: Annotated[
        Path | None, typer.Option(help="Append a Markdown summary here (default: $GITHUB_STEP_SUMMARY, if set).")
    ] = None
    page: Annotated[
        Path | None, typer.Option("--report", help="Write the evidence as one HTML file, trajectories included.")
    ] = None
    as_json: AsJson = False
    calibrated: Annotated[
        bool, typer.Option("--calibration/--no-calibration", help="Measure this gate's error rates (kept in a cache).")
    ] = True


@dataclass
class Simulated:
    """The checkpoints that a gate is tried on."""

    sources: Sources = None
    ends: EndsFile = None
    baseline: Annotated[str | None, typer.Option(help="Arm of --from whose stored seeds are the surface.")] = None
    surface: Annotated[
        str | None, typer.Option(help="Public surface instead: deepswe, autocoderover or temperature-0.")
    ] = None
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of a public surface.")] = 500
    seeds: Annotated[int | None, typer.Option("--seeds", "-k", min=1, help="Rollouts of the candidate a task.")] = None
    baseline_seeds: Annotated[int | None, typer.Option(min=1, help="Stored rollouts of the baseline a task.")] = None
    fresh: Annotated[bool, typer.Option("--fresh", help="The baseline is run beside the candidate.")] = False
    drops: Annotated[str, typer.Option(help="True drops to try, in points; 0 and the margin always are.")] = "5,10,20"
    trials: Annotated[int, typer.Option(min=1, help="Gates to simulate for each drop.")] = 400
    trial_seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0
    as_json: AsJson = False


def register(app: typer.Typer) -> None:
    app.command("gate", epilog=GATE_EXAMPLES)(grouped(gate))
    app.command("calibrate", epilog=CALIBRATE_EXAMPLES)(grouped(calibrate))


def gate(arms: Arms, asked: Asked, output: Output, run: Run) -> None:
    """Is the candidate at most a margin worse than the baseline? Decides early, with guaranteed error rates."""
    from rich.console import Console

    from aem_harness.api.gating import Candidate, Served, decide
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.gate.ci import published
    from aem_harness.harness.gate.driver import Options
    from aem_harness.harness.gate.report import to_text

    config = asked.config(seed=arms.order_seed, orders=arms.orders, retries=arms.retries)
    if arms.registered:
        _as_registered(arms, config)
    with published(output.junit, output.summary) as reports:
        candidate = arms.candidate or Candidate(
            checkpoint=run.checkpoint,
            agent=run.agent,
            arm=run.arm,
            dataset=run.dataset,
            seeds=run.seeds,
            workers=run.workers,
            grade_workers=run.grade_workers,
            out=run.out,
            registry=run.registry,
            gpus=run.gpus,
            canary=None if run.no_canary else run.canary,
            served=Served(run.endpoint or (), run.model),
            baseline=Served(run.baseline_endpoint or (), run.baseline_model),
        )
        found = decide(
            config,
            arms.baseline,
            candidate,
            arms.sources or (),
            Options(
                history=arms.history or (),
                fresh=arms.fresh,
                common=arms.common,
                audited=arms.audited,
                ends=read_ends(arms.ends) if arms.ends else None,
                pin=arms.pin,
                allow=arms.allow or (),
                sequence=output.sequence,
                window=output.window,
                page=output.page,
                ledger=output.ledger,
                least_chance=arms.min_power,
                calibrated=output.calibrated,
            ),
            Console(stderr=True),
        )
        reports.append(found)
    typer.echo(found.model_dump_json(indent=1) if output.as_json else to_text(found))
    raise typer.Exit(found.exit_code)


def _as_registered(arms: Arms, config: "GateConfig") -> None:
    """Say before the first rollout how far the gate keeps to its plan; of stored outcomes their tasks too."""
    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.compare.registration import deviations, note_of, read_registration
    from aem_harness.harness.ends import read_ends

    assert arms.registered is not None
    plan = read_registration(arms.registered)
    stored = load(arms.sources, read_ends(arms.ends)) if arms.sources and arms.candidate else None
    names = [arms.baseline, arms.candidate] if stored and arms.candidate else []
    found = deviations(plan, stored, arms=names, margin=config.margin, order=config.seed)
    typer.echo(note_of(plan, found), err=True)


def calibrate(simulated: Simulated, asked: Asked) -> None:
    """Measure the gate's false alarms, misses and rollouts on checkpoints whose true difference is known."""
    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.gate.calibrate import Calibration, calibrate, own_surface, public_surface, to_text
    from aem_harness.harness.gate.table import read_arm

    config, sources, baseline = asked.config(), simulated.sources, simulated.baseline
    seeds, baseline_seeds = simulated.seeds, simulated.baseline_seeds
    if (simulated.surface is None) == (not sources) or (sources and baseline is None):
        raise ConfigError("give either --from with --baseline, or --surface")
    if sources and baseline is not None:
        arm = read_arm(load(sources, read_ends(simulated.ends)), baseline, retries=config.retries)
        world, source = own_surface(arm)
        seeds, baseline_seeds = seeds or len(arm.seeds), baseline_seeds or len(arm.seeds)
    else:
        world, source = public_surface(simulated.surface or "", simulated.tasks)
    found: Calibration = calibrate(
        config,
        world,
        source=source,
        seeds=seeds or 4,
        baseline_seeds=baseline_seeds or seeds or 4,
        drops=_points(simulated.drops),
        trials=simulated.trials,
        seed=simulated.trial_seed,
        fresh=simulated.fresh,
    )
    typer.echo(found.model_dump_json(indent=1) if simulated.as_json else to_text(found))


def _points(text: str) -> list[float]:
    from aem_harness.harness.errors import ConfigError

    try:
        return [float(part) / 100 for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--drops {text!r} must be numbers separated by commas, for example 5,10,20") from None
