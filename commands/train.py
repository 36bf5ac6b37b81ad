"""`aem train`: train a policy, from a YAML file to a checkpoint folder."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aem_harness.commands import options

EXAMPLES = """
The supervised start of the tiny policies, minutes on a CPU; GRPO with entropy modulation, other seed and strength:

  aem train --config tiny-warm-start

  aem train --config tiny-aem -c seed=3 -c aem.lam=0.5

The same task under TRL's GRPOTrainer; a 64-GPU run on verl, checked without a GPU:

  aem train --config tiny-trl

  aem train --config deepswe-aem --dry-run

A killed run continues from its last saved step, and gives the same numbers:

  aem train --config my.yaml --out results/training/mine --resume

The effect of these settings, in six arms of 64 runs:

  aem train --verify-method -c method.lam=2 -c base=dapo
"""


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(train)


def train(
    config: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="YAML file, or the name of a shipped one.")
    ] = None,
    settings: options.Overrides = None,
    old_settings: Annotated[list[str] | None, typer.Option("--set", hidden=True)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Run folder (default: results/training/NAME-seedN)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last saved step.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check settings and requirements, and train nothing.")
    ] = False,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Register the checkpoint in ./checkpoints under this name.")
    ] = None,
    verify_method: Annotated[
        bool,
        typer.Option(
            "--verify-method",
            help="Instead of training: compare this method with five controls in a small simulated task.",
        ),
    ] = False,
) -> None:
    """Train a policy: supervised warm start, or reinforcement learning with or without entropy modulation.

    `kind` in the YAML file selects the trainer: warm-start and rl (the reference trainer), trl, or verl.
    """
    from rich.console import Console

    from aem_harness.harness.errors import ConfigError

    if old_settings:
        typer.echo("note: --set KEY=VALUE is now -c KEY=VALUE, as in aem run; --set names a dataset there", err=True)
    settings = [*(old_settings or ()), *(settings or ())]
    if verify_method:
        _verify(config, settings, out or Path("results") / "training" / "certificate", Console())
        return
    if config is None:
        raise ConfigError("nothing to train: give --config a YAML file, or the name of a shipped one such as tiny-aem")
    from aem_harness.api.training import train as run
    from aem_harness.training.config import find_config, load_config

    loaded = load_config(find_config(config), settings)
    folder = out or Path("results") / "training" / f"{loaded.name}-seed{loaded.seed}"
    if dry_run:
        _check(loaded, folder, Console(), resume=resume)
        return
    plain = Console(stderr=True, force_terminal=False)  # a gate inside prints lines: the bar is the only live display
    if loaded.kind == "verl":  # it has a console of its own
        checkpoint = run(loaded, folder, resume=resume, console=plain)
    else:
        with _Progress(Console(stderr=True), loaded.name, loaded.steps) as progress:
            checkpoint = run(loaded, folder, resume=resume, report=progress.show, console=plain)
    Console().print(f"checkpoint: {checkpoint}", soft_wrap=True)
    if told := _change(checkpoint):
        Console().print(told, soft_wrap=True, highlight=False)
    if register:
        from aem_harness.aem_checkpoints import adding

        for card in adding.cards(register, {"path": str(checkpoint)}, Path("checkpoints")):
            Console().print(f"registered: {adding.add(card, Path('checkpoints'))}", soft_wrap=True)


def _change(checkpoint: Path) -> str:
    """What training has done to the weights, by the checkpoint's card; "" where that is not known."""
    from aem_harness.aem_checkpoints.card import CARD, read_card

    changed = read_card(checkpoint / CARD).training.changed if (checkpoint / CARD).is_file() else None
    if changed is None:
        return ""
    if changed == 0:
        return (
            "warning: no weight differs from the start's, so this checkpoint is the policy that training began with; "
            "updates too small for the precision that weights are stored in are lost"
        )
    return f"weights: {f'{changed:.1%}' if changed >= 0.001 else 'less than 0.1%'} differ from the start's"


def _verify(name: str | None, settings: Sequence[str], folder: Path, console: Any) -> None:
    """The method certificate; a configuration, if named, gives method and base; `settings` override both."""
    from time import monotonic

    from aem_harness.training import certificate
    from aem_harness.training.ensemble import ARMS, ensemble_config

    chosen = ensemble_config(name, settings)
    method, started = chosen.method, monotonic()
    console.print(
        f"{len(ARMS)} arms x {chosen.seeds} training runs of {chosen.steps} steps, {chosen.base}, "
        f"lambda {method.lam:g}, gate {method.min_range:g} nats",
        soft_wrap=True,
    )
    outcomes = certificate.certify(
        chosen, folder, report=lambda arm: console.print(f"{arm} trained after {monotonic() - started:.0f} s")
    )
    for question, answer, p in certificate.answers(outcomes):
        console.print(f"\n{question.text}\n  {certificate.told(answer, p)}", soft_wrap=True, highlight=False)
    console.print(f"\ncertificate: {folder / 'certificate.md'}", soft_wrap=True)


def _check(config: Any, folder: Path, console: Any, *, resume: bool) -> None:
    """What a run would be. Exit code 4 if it could not start; for verl, what only this machine lacks is listed."""
    if config.kind != "verl":
        from aem_harness.training.run import check

        check(config, folder, resume=resume)
        console.print(f"settings of {config.name} are valid: {config.steps} steps, kind {config.kind}")
        return
    from aem_harness.training.engines import verl_run

    findings = verl_run.check(config, folder)
    for finding in findings:
        mark = _mark(finding)
        console.print(f"{mark:8} {finding.what}{': ' * bool(finding.problem)}{finding.problem}", soft_wrap=True)
    console.print(f"\n{shlex.join(verl_run.command(config, folder))}\n", soft_wrap=True, highlight=False, markup=False)
    verl_run.refuse_misfit(findings)
    lacking = sum(bool(finding.problem) and not finding.advice for finding in findings)
    here = f"; to launch it here, {lacking} things are missing" if lacking else ""
    console.print(f"the plug-in fits the installed verl{here}", soft_wrap=True)


def _mark(finding: Any) -> str:
    """What the dry run says of a finding, in a word."""
    if not finding.problem:
        return "ok"
    return "MISSING" if finding.hook else "advice" if finding.advice else "not here"


class _Progress:
    """One line that moves on a terminal; elsewhere one line every tenth of the run."""

    def __init__(self, console: Any, name: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console, self.steps = console, steps
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(
            *columns, TextColumn("{task.fields[facts]}"), console=console, disable=not console.is_terminal
        )
        self.task = self.bar.add_task(name, total=steps, facts="")

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, metrics: Any) -> None:
        facts = "  ".join(f"{label} {metrics[name]:{form}}" for name, label, form in SHOWN if name in metrics)
        self.bar.update(self.task, completed=metrics["step"], facts=facts)
        if not self.console.is_terminal and metrics["step"] % max(1, self.steps // 10) == 0:
            self.console.print(f"step {metrics['step']}/{self.steps}  {facts}", soft_wrap=True, highlight=False)


SHOWN = (
    ("loss", "loss", ".3f"),
    ("reward", "reward", ".2f"),
    ("test_greedy", "success", ".2f"),
    ("response_entropy", "entropy", ".3f"),
    ("alpha_max", "alpha", ".2f"),
    ("gated_share", "gated", ".0%"),
    ("tokens_per_second", "tokens/s", ".0f"),
)
