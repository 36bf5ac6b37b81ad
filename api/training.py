"""Training with a gate inside: what `aem train` calls."""

import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.api.running import Tasks, quiet
from aem_harness.harness.types import Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.gate.config import GateConfig
    from aem_harness.harness.gate.sequence import GateSequence
    from aem_harness.training.config import Settings
    from aem_harness.training.watch import GateRecord, GateSettings

REGISTRY = "registry"  # folder of a run: the cards of its gated checkpoints, NAME-seedS@STEP


def train(
    config: "Settings",
    out: Path,
    *,
    resume: bool = False,
    report: "Callable[[Mapping[str, Any]], None]" = lambda _: None,
    console: "Console | None" = None,
) -> Path:
    """Run the configured training in the folder `out`; returns the final checkpoint's folder.

    With a section `gate` every so many steps the policy is registered and gated; raises Regressed where that stops it.
    """
    from aem_harness.training.run import slow_here
    from aem_harness.training.run import train as run

    console = console or quiet()
    if slow := slow_here(config):
        console.print(f"note: {slow}", soft_wrap=True)
    watch = getattr(config, "gate", None)
    watcher = Gatekeeper(config, watch, out, console) if watch else None
    return run(config, out, resume=resume, report=report, watcher=watcher)


def lost_whole(run: Path) -> bool:
    """Whether a stored run has lost rollouts and nothing else: infrastructure took every one of them."""
    from aem_harness.harness.compare.outcomes import read_run
    from aem_harness.harness.run.store import read_journal

    if not (run / "run.json").is_file() or not any(event["event"] == "rollout" for event in read_journal(run)):
        return False
    table = read_run(run).table
    return bool((table["outcome"].eq(Outcome.ERROR.value) | table["cause"].eq("not run")).all())


def sequence_in(file: Path) -> "GateSequence | None":
    """The gates of a run so far, None before the first has ended."""
    from aem_harness.harness.errors import DataError, validating
    from aem_harness.harness.gate.sequence import GateSequence
    from aem_harness.harness.io import read_json

    if not file.is_file():
        return None
    with validating(DataError, f"{file} is not the state of a sequence of gates"):
        return GateSequence.model_validate(read_json(file))


class Gatekeeper:
    """Registers a checkpoint, gates it against the policy that training started from, and writes down the verdict.

    The gate's runs, its ledger and its sequence lie in the run's folder. A gate that was interrupted goes on where it
    was; an infrastructure fault raises, and `--resume` repeats the gate.
    """

    def __init__(self, config: "Settings", watch: "GateSettings", out: Path, console: "Console") -> None:
        from aem_harness.training.watch import GATES

        self._config, self._watch, self._out, self._console = config, watch, out, console
        self._run, self._gates, self._registry = f"{config.name}-seed{config.seed}", out / GATES, out / REGISTRY
        self._sequence = self._gates / "sequence.json"
        self._refuse()

    def __call__(self, step: int, folder: Path) -> None:
        from aem_harness.training.watch import Regressed, stopped

        verdict = self._gate(step, folder)
        self._console.print(
            f"gate at step {step}: {verdict.verdict}, {verdict.reason}", highlight=False, soft_wrap=True
        )
        if verdict.verdict == "BLOCK" and self._watch.on_regression == "stop":
            raise Regressed(stopped(verdict, self._out))

    def _refuse(self) -> None:
        """Raise ConfigError or DataError, before the first step, for a gate that could not be made at its first one."""
        from aem_harness.api.running import choose
        from aem_harness.harness.errors import ConfigError, listed
        from aem_harness.harness.io import read_json
        from aem_harness.harness.run.seeds import seeds_of

        chosen = choose(self._watch.set, self._console, Tasks(slice=self._watch.slice))
        if not chosen.tasks:
            raise ConfigError(f"gate: {self._watch.set} {self._watch.slice} has no instances")
        if self._watch.baseline and not (Path(self._watch.baseline) / "run.json").is_file():
            raise ConfigError(f"gate: baseline must be a run folder; {self._watch.baseline} has no run.json")
        if self._watch.baseline:
            theirs = set(seeds_of(read_json(Path(self._watch.baseline) / "run.json")["plan"]))
            ours = {task.instance_id for task in chosen.tasks}
            if apart := sorted(theirs ^ ours):
                raise ConfigError(
                    f"gate: the baseline {self._watch.baseline} is not of the instances of {self._watch.set} "
                    f"{self._watch.slice}".rstrip()
                    + f": {listed(apart, most=3)} are in one of them alone"
                )
        begun, alpha = sequence_in(self._sequence), self._settings.alpha
        if begun and begun.alpha != alpha:
            raise ConfigError(
                f"the gates of this run so far had alpha {begun.alpha:g}, which all of them share, not {alpha:g}: "
                "keep it, or train into another --out"
            )

    def _gate(self, step: int, folder: Path) -> "GateRecord":
        from aem_harness.api.gating import Candidate, decide
        from aem_harness.harness.gate.driver import GateOptions
        from aem_harness.harness.run.store import now
        from aem_harness.training.watch import GateRecord

        watch, name, runs = self._watch, self._register(step, folder), self._gates / f"step-{step}"
        if lost_whole(runs):  # its losses are final for a gate, which would only say so again
            shutil.rmtree(runs)
        begun = sequence_in(self._sequence)
        report = decide(
            self._settings,
            str(self._baseline),
            Candidate(
                checkpoint=name,
                registry=self._registry,
                seeds=watch.seeds,
                workers=watch.workers,
                out=runs,
            ),
            (),
            GateOptions(
                sequence=self._sequence,
                # A run that is extended has more gates than its first settings said; any so many share the alpha.
                window=begun.window if begun else max(2, len(watch.steps(self._config.steps))),
                ledger=self._gates / "ledger.jsonl",
            ),
            self._console,
        )
        verdict = GateRecord(
            step=step,
            checkpoint=name,
            verdict=report.verdict,
            difference=report.difference,
            rollouts=report.rollouts,
            reason=report.reason,
            at=now(),
        )
        self._write(verdict)
        return verdict

    def _write(self, verdict: "GateRecord") -> None:
        from aem_harness.harness.io import write_json_lines
        from aem_harness.training.watch import VERDICTS, verdicts

        lines = [*verdicts(self._out), verdict]
        write_json_lines(self._out / VERDICTS, (line.model_dump(mode="json") for line in lines))

    def _register(self, step: int, folder: Path) -> str:
        """The checkpoint of a step under its name in the run's own registry."""
        from aem_harness.aem_checkpoints import adding

        name = f"{self._run}@{step}"
        values: dict[str, Any] = {"path": str(folder), "training": {"step": step}}
        for card in adding.cards(name, values, self._registry, self._lent):
            adding.add(card, self._registry, replace=True)
        return name

    @cached_property
    def _settings(self) -> "GateConfig":
        from aem_harness.harness.gate.config import Budget, configure

        watch = self._watch
        settings: dict[str, Any] = {"margin": watch.margin, "alpha": watch.alpha}
        if watch.budget:
            settings["budget"] = Budget.parse(watch.budget)
        return configure(watch.tier, **settings)

    @cached_property
    def _lent(self) -> dict[str, Any]:
        """How every policy of this run is served and driven: as the run's card says."""
        from aem_harness.aem_checkpoints import adding
        from aem_harness.aem_checkpoints.card import CARD, read_card

        return adding.lent(read_card(self._out / CARD))

    @cached_property
    def _baseline(self) -> Path:
        """The stored run to hold against: that of the settings, else one of the policy that training started from."""
        from aem_harness.aem_checkpoints import adding
        from aem_harness.api.running import run
        from aem_harness.training.start import policy_or_hub

        if self._watch.baseline:
            return Path(self._watch.baseline)
        name, start = f"{self._run}@0", policy_or_hub(str(self._config.start))
        place = {"path": start} if Path(start).is_dir() else {"hub": start}
        driven = {key: value for key, value in self._lent.items() if key in ("serving", "scaffold", "sampling")}
        for card in adding.cards(name, {**driven, **place}, self._registry):
            adding.add(card, self._registry, replace=True)
        finished = run(
            dataset=self._watch.set,
            tasks=Tasks(slice=self._watch.slice),
            seeds=self._watch.seeds,
            checkpoint=name,
            registry=self._registry,
            out=self._gates / "start",
            workers=self._watch.workers,
            canary=None,
            # Until a gate has rested on it; after that its outcomes stay what they were, or its sequence would end.
            retry_infrastructure=not self._sequence.is_file(),
            # The candidates take the settings over: one whose every reply is malformed has become worse, and that it is
            # not the set-up is known from the start, of which a gate refuses one that resolves nothing.
            stop_alike=0,
            console=self._console,
        )
        return finished.folder
