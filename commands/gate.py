"""`aem gate`: PASS, BLOCK or INCONCLUSIVE, as early as possible; `aem calibrate`: the error rates of a gate."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from aem_harness.commands import options
from aem_harness.commands.options import grouped

if TYPE_CHECKING:
    from aem_harness.harness.gate.config import GateConfig

GATE_EXAMPLES = """
Stored outcomes of both arms:

  aem gate --from outcomes.csv --baseline step-0 --candidate step-200

Two run folders, with a report for CI:

  aem gate --baseline results/base --candidate results/new --junit gate.xml

A budget in tokens:

  aem gate --from outcomes.csv --baseline base --candidate new --budget 20Mtok

Run the candidate, with no more rollouts than needed; run both, in pairs:

  aem gate --baseline results/base --checkpoint step-200 --seeds 4

  aem gate --fresh --baseline step-0 --checkpoint step-200 --set verified

Exit codes: 0 PASS, 1 BLOCK, 2 INCONCLUSIVE, 3 no verdict (infrastructure failed, or the arms differ in more than
their weights), 4 usage.
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


class Estimand(StrEnum):
    rates = "rates"
    outcomes = "outcomes"


Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="Outcomes: a CSV file, a run folder, or what `aem import` reads. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass
class Arms:
    """The arms, and what is done about differences between them."""

    PANEL: ClassVar[str] = "Arms, and what they must have in common"

    baseline: Annotated[
        str,
        typer.Option(
            metavar="ARM", help="Baseline: an arm of --from, a run folder, a file, or with --fresh a checkpoint."
        ),
    ]
    candidate: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="Candidate, likewise. Without it, a candidate is run."),
    ] = None
    sources: Sources = None
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM|FOLDER", help="Outcomes of an earlier checkpoint, for a better order of tasks. Repeatable."
        ),
    ] = None
    fresh: Annotated[
        bool, typer.Option("--fresh", help="The baseline is run (or was run) beside the candidate, in pairs.")
    ] = False
    common: options.Common = False
    audited: Annotated[
        bool,
        typer.Option("--audited", help="Count rollouts that canaries caught tampering with tests as failures."),
    ] = False
    ends: options.EndsFile = None
    pin: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Refuse to start unless the baseline's outcomes have this digest."),
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="SETTING", help="Difference between the arms to accept, for example grader. Repeatable."),
    ] = None
    registered: options.Registered = None
    order_seed: Annotated[int | None, typer.Option(help="Seed of the order of the rollouts (default: 0).")] = None
    orders: Annotated[
        int | None,
        typer.Option(help="How often this candidate may be gated, each in an order or run of its own (default: 1)."),
    ] = None
    min_power: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Refuse to start if an equal checkpoint would PASS less often than this.",
        ),
    ] = 0.0
    retries: Annotated[
        int | None,
        typer.Option(help="How often a rollout lost to infrastructure is repeated, in both arms (default: 1)."),
    ] = None


@dataclass
class Asked:
    """What is asked of a gate."""

    PANEL: ClassVar[str] = "Margin, error rates and budget"

    margin: Annotated[
        float | None, typer.Option(metavar="POINTS", min=0, max=100, help="Tolerated drop (default: 3; smoke: 10).")
    ] = None
    block_margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", min=0, max=100, help="BLOCK once the drop is shown to exceed this (default: the margin)."
        ),
    ] = None
    alpha: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Error rate of PASS and of BLOCK (default: 0.05; release: 0.025)."),
    ] = None
    tier: Annotated[Tier, typer.Option(help="Preset: smoke, nightly (decides early) or release (one look).")] = (
        Tier.nightly
    )
    question: Annotated[
        Estimand | None,
        typer.Option("--question", help="Compare true resolve rates (default), or the full table of outcomes."),
    ] = None
    budget: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Upper limit: 800 (rollouts), 20Mtok or 12gpuh.")
    ] = None
    futility: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=0.99,
            help="End INCONCLUSIVE once the chance of a verdict is below this share of its initial value; 0: never "
            "(default: 0.27 for a nightly gate that runs the candidate, and for aem calibrate of one; else 0).",
        ),
    ] = None
    launch_sd: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", min=0, help="Known standard deviation of a rate between launches of its server."
        ),
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
class CandidateRun:
    """How a candidate is run."""

    PANEL: ClassVar[str] = "When the candidate is run"

    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Registered checkpoint to run as the candidate.")
    ] = None
    agent: Annotated[
        str | None, typer.Option(metavar="AGENT", help="Agent of the candidate (default: that of the baseline).")
    ] = None
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="OpenAI-compatible server of the candidate. Repeatable."),
    ] = None
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model name at the endpoint.")] = None
    baseline_endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Server of a --fresh baseline (default: --endpoint). Repeatable."),
    ] = None
    baseline_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model name at the baseline's endpoint.")
    ] = None
    dataset: Annotated[
        str | None, typer.Option("--set", metavar="NAME|FILE", help="Task set, where the baseline is a checkpoint.")
    ] = None
    arm: Annotated[str | None, typer.Option(metavar="NAME", help="Label of the candidate's run.")] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--config-value",
            "-c",
            metavar="KEY=VALUE",
            help="outage_seconds=N or stop_alike=N; all other settings are the baseline's.",
        ),
    ] = None
    seeds: Annotated[
        int, typer.Option("--seeds", "-k", min=1, max=10**5, help="Maximum number of rollouts per task.")
    ] = 4
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Run folder (default: results/gate-...)."),
    ] = None
    workers: options.Workers = 4
    grade_workers: options.GradeWorkers = 2
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of the server behind an arm, where the server does not say."),
    ] = None
    canary: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Share of the resolved rollouts without marks to grade again with canaries (with --audited: all).",
        ),
    ] = 0.05
    no_canary: options.NoCanary = False
    registry: options.RegistryFolder = None


@dataclass
class Machines(options.Machines):
    """Where the rollouts of a candidate are run."""

    PANEL: ClassVar[str] = CandidateRun.PANEL


@dataclass
class Output:
    """What a gate keeps and leaves behind."""

    PANEL: ClassVar[str] = "Records and reports"

    sequence: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State of a sequence of gates that share one false-alarm rate."),
    ] = None
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Number of consecutive gates that share the false-alarm rate (default: 7)."),
    ] = None
    ledger: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record of every gate (default: one per user)."),
    ] = None
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML here.")] = None
    summary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append a Markdown summary here (default: $GITHUB_STEP_SUMMARY, if it is set)."
        ),
    ] = None
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write one HTML file with the evidence and the trajectories."),
    ] = None
    as_json: AsJson = False
    calibrated: Annotated[
        bool,
        typer.Option("--calibration/--no-calibration", help="Measure the error rates of this gate (cached)."),
    ] = True


@dataclass
class Simulated:
    """The checkpoints that a gate is tried on."""

    PANEL: ClassVar[str] = "Simulated checkpoints"

    sources: Sources = None
    ends: options.EndsFile = None
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="ARM", help="Arm of --from whose task rates are the simulated baseline (default: the only one)."
        ),
    ] = None
    surface: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Public task rates instead: deepswe, autocoderover or temperature-0."),
    ] = None
    tasks: Annotated[int, typer.Option(min=1, max=10**5, help="Tasks of a public surface.")] = 500
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", "-k", min=1, max=1000, help="Candidate rollouts per task (default: as stored, or 4)."),
    ] = None
    baseline_seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Stored baseline rollouts per task (default: as stored, or as --seeds)."),
    ] = None
    fresh: Annotated[bool, typer.Option("--fresh", help="The baseline is run beside the candidate.")] = False
    drops: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS,...", help="True drops to try, beside 0 and the margin (default: 5,10,20, where possible)."
        ),
    ] = None
    trials: Annotated[int, typer.Option(min=1, help="Simulated gates per drop.")] = 400
    trial_seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0
    as_json: AsJson = False


def register(app: typer.Typer) -> None:
    app.command("gate", epilog=GATE_EXAMPLES)(grouped(gate))
    app.command("calibrate", epilog=CALIBRATE_EXAMPLES)(grouped(calibrate))


def gate(
    context: typer.Context, arms: Arms, asked: Asked, run: CandidateRun, machines: Machines, output: Output
) -> None:
    """Is the candidate worse than the baseline by no more than a margin? Decides early, with stated error rates."""
    from rich.console import Console

    from aem_harness.api.gating import Candidate, decide
    from aem_harness.api.serving import Served
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.gate.ci import published
    from aem_harness.harness.gate.driver import GateOptions
    from aem_harness.harness.gate.report import to_text

    config = asked.config(seed=arms.order_seed, orders=arms.orders, retries=arms.retries)
    where = machines.where()
    if arms.candidate and (ignored := [*options.given(context, run), *options.given(context, machines)]):
        raise ConfigError(f"the outcomes of {arms.candidate} are there already: remove {', '.join(ignored)}")
    if arms.registered:
        _as_registered(arms, config, run)
    with published(output.junit, output.summary) as reports:
        candidate = arms.candidate or Candidate(
            checkpoint=run.checkpoint,
            agent=run.agent,
            arm=run.arm,
            dataset=run.dataset,
            overrides=run.overrides or (),
            seeds=run.seeds,
            workers=run.workers,
            grade_workers=run.grade_workers,
            out=run.out,
            registry=run.registry,
            gpus=run.gpus,
            canary=None if run.no_canary else run.canary,
            where=where,
            served=Served(run.endpoint or (), run.model),
            baseline=Served(run.baseline_endpoint or (), run.baseline_model),
        )
        found = decide(
            config,
            arms.baseline,
            candidate,
            arms.sources or (),
            GateOptions(
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


def _as_registered(arms: Arms, config: "GateConfig", run: CandidateRun) -> None:
    """Report before the first rollout where the gate deviates from its plan; for stored outcomes also in its tasks."""
    from aem_harness.harness.compare.registration import deviations, note_of, read_registration
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.gate.stored import load_arms

    assert arms.registered is not None
    plan = read_registration(arms.registered)
    stored, names = None, list[str]()
    if arms.candidate:
        stored, *names = load_arms(arms.sources or (), arms.baseline, arms.candidate, read_ends(arms.ends))
    found = deviations(
        plan,
        stored,
        arms=names,
        margin=config.margin,
        block_margin=config.block_margin,
        alpha=config.alpha,
        order=config.seed,
        orders=config.orders,
        seeds=None if stored else run.seeds,
    )
    typer.echo(note_of(plan, found), err=True)


def calibrate(simulated: Simulated, asked: Asked) -> None:
    """Measure how often a gate errs, and how many rollouts it uses, on checkpoints whose true difference is known."""
    from aem_harness.harness.compare.outcomes import load
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.errors import ConfigError, listed
    from aem_harness.harness.gate.calibrate import Calibration, calibrate, own_surface, public_surface, to_text
    from aem_harness.harness.gate.table import read_arm

    config, sources, baseline = asked.config(), simulated.sources, simulated.baseline
    seeds, baseline_seeds = simulated.seeds, simulated.baseline_seeds
    only_of_sources = {"--baseline": baseline, "--ends": simulated.ends}
    if (simulated.surface is None) == (not sources):
        raise ConfigError("give either --from, with outcomes, or --surface")
    if simulated.surface and (ignored := [name for name, value in only_of_sources.items() if value]):
        raise ConfigError(f"{' and '.join(ignored)}: only with --from")
    if sources:
        outcomes = load(sources, read_ends(simulated.ends))
        if baseline is None and len(outcomes.arms) != 1:
            raise ConfigError(
                f"--from has {len(outcomes.arms)} arms: name one with --baseline ({listed(outcomes.arms)})"
            )
        arm = read_arm(outcomes, baseline or outcomes.arms[0], retries=config.retries)
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
        drops=None if simulated.drops is None else _points(simulated.drops),
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
        raise ConfigError(f"--drops {text!r} must be comma-separated numbers, for example 5,10,20") from None
