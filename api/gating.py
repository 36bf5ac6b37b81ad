"""From the settings of a gate to its report: what `aem gate` and the Python API share."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.api.running import Tasks, audit, choose, driving, enter_run, quiet, require
from aem_harness.api.serving import Served, card_defaults, one_checkpoint
from aem_harness.api.sites import AtATime, Driver, Opened, Where, opened

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.aem_checkpoints.registry import Entry
    from aem_harness.api.comparing import OwnEnds
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.gate.config import GateConfig
    from aem_harness.harness.gate.driver import GateOptions
    from aem_harness.harness.gate.gate import Gate
    from aem_harness.harness.gate.live import ArmPlan, Live, Side
    from aem_harness.harness.gate.report import GateReport
    from aem_harness.harness.run.sites import Site
    from aem_harness.harness.run.store import RunStore


@dataclass(frozen=True)
class Candidate:
    """A candidate that is run: what it is, where, and how much of it at a time.

    `gpus` are those behind its servers, if they do not say so themselves; `baseline` is where a fresh baseline is.
    `canary` is the share of the resolved rollouts without marks that are graded again with canaries after the verdict,
    beside all marked ones (None: nothing is); where the gate decides on audited outcomes, all are, before they count.
    `where` its containers are. `overrides` are `key=value` settings that change no outcome; those that may are the
    baseline's.
    """

    checkpoint: str | None = None
    agent: str | None = None
    arm: str | None = None
    dataset: str | None = None
    seeds: int = 4
    workers: int = 4
    grade_workers: int = 2
    out: Path | None = None
    registry: Path | None = None
    gpus: float | None = None
    canary: float | None = 0.05
    where: Where = field(default_factory=Where)
    served: Served = field(default_factory=Served)
    baseline: Served = field(default_factory=Served)
    overrides: Sequence[str] = ()


def gate(
    baseline: str | Path,
    candidate: "str | Path | Candidate",
    *,
    sources: Sequence[str | Path] = (),
    tier: str = "nightly",
    options: "GateOptions | None" = None,
    ends: "OwnEnds" = None,
    console: "Console | None" = None,
    **settings: Any,
) -> "GateReport":
    """Is the candidate at most a margin worse than the baseline? The report has `passed` and `verdict`.

    Both are arms of `sources`, or run folders and files; a `Candidate` is run as far as the verdict needs, and with
    `options.fresh` the baseline beside it. `settings` are those of `GateConfig`, over the tier's; margins are fractions
    (0.03 is 3 points). `ends` overrides whose fault an end is, in both arms, as for `outcomes`. Without `console`
    nothing is printed.

    Raises ConfigError and DataError for what cannot be gated, DriftFault for arms that differ in more than the weights.
    """
    from aem_harness.harness.ends import read_ends
    from aem_harness.harness.gate.config import configure
    from aem_harness.harness.gate.driver import GateOptions

    config, names = configure(tier, **settings), [str(one) for one in sources]
    options = options or GateOptions()
    if ends is not None:
        options = replace(options, ends=read_ends(ends))
    return decide(config, str(baseline), candidate, names, options, console or quiet())


def decide(
    config: "GateConfig",
    baseline: str,
    candidate: "str | Path | Candidate",
    sources: Sequence[str],
    options: "GateOptions",
    console: "Console",
) -> "GateReport":
    """Find where the outcomes come from, and put them through the gate."""
    from aem_harness.harness.gate.driver import drive
    from aem_harness.harness.gate.report import chances
    from aem_harness.harness.gate.stored import Stored

    def announce(gate: "Gate") -> None:
        console.print(chances(gate), highlight=False, soft_wrap=True)

    if isinstance(candidate, Candidate):
        return drive(live(baseline, candidate, options, console), config, options, announce)
    return drive(Stored.read(sources, baseline, str(candidate), options.ends), config, options, announce)


# --- arms that are run ------------------------------------------------------------------------------------------------


def live(baseline: str, candidate: Candidate, options: "GateOptions", console: "Console") -> "Live":
    """The candidate, or both arms, as a source that runs them. Raises ConfigError for settings that make no sense."""
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.gate.gate import BASELINE, CANDIDATE
    from aem_harness.harness.gate.live import ArmPlan, Live, Opening

    if options.audited and candidate.canary is None:
        raise ConfigError("--audited needs the findings of canaries: remove --no-canary")
    stored = Path(baseline) if (Path(baseline) / "run.json").is_file() else None
    if options.fresh:
        if options.pin is not None:
            raise ConfigError(
                "--pin is for stored outcomes, and a fresh baseline has none yet: remove one of the two options"
            )
        theirs = _overridden(baseline_config(baseline, candidate.dataset, candidate.registry), candidate.overrides)
        mine = candidate_config(theirs, candidate)
        parent = candidate.out or Path("results") / f"gate-{theirs.arm}-{mine.arm}-{mine.digest}"
        plans = [
            ArmPlan(BASELINE, theirs, parent / theirs.arm),
            ArmPlan(CANDIDATE, mine, parent / mine.arm, _weights(candidate)),
        ]
    else:
        stored = Path(baseline)
        mine = candidate_config(stored, candidate)
        folder = candidate.out or Path("results") / f"gate-{mine.arm}-{mine.digest}"
        plans = [ArmPlan(CANDIDATE, mine, folder, _weights(candidate))]
    arms = _Arms(halved(candidate) if options.fresh else candidate, mine.dataset, options.audited, console)
    return Live(plans, candidate.seeds, Opening(arms.choose, arms.open), console, stored)


def _weights(candidate: Candidate) -> str:
    """The digest of a registered checkpoint's weights; empty for another candidate."""
    from aem_harness.harness.gate.table import digest_of_weights

    if not candidate.checkpoint:
        return ""
    card = one_checkpoint(candidate.checkpoint, candidate.registry).card
    return digest_of_weights(dict(card.digests) or {"hub": card.hub, "revision": card.revision})


class _Arms:
    """Chooses the tasks and opens the arms of a gate."""

    def __init__(self, candidate: Candidate, dataset: str, audited: bool, console: "Console") -> None:
        self._candidate, self._dataset, self._audited, self._console = candidate, dataset, audited, console

    def choose(self, ids: Sequence[str] | None) -> Any:
        self._selection = choose(self._dataset, self._console, Tasks(ids=ids or ()))
        return self._selection.tasks

    @contextmanager
    def open(self, plan: "ArmPlan", gate: "Gate") -> "Iterator[Side]":
        """One arm, ready to run: its server is up, its folder open; both are closed with the block.

        Canaries come once the server is down, or where they decide, before the grade of each resolved rollout is known.
        """
        from aem_harness.agents.build import check
        from aem_harness.harness.errors import ConfigError
        from aem_harness.harness.gate.gate import BASELINE
        from aem_harness.harness.gate.live import Side
        from aem_harness.harness.run.auditing import unseen
        from aem_harness.harness.run.submission import Submission

        how, run = self._candidate, plan.config
        served = how.served
        if plan.role == BASELINE:
            served = Served(how.baseline.endpoints or served.endpoints, how.baseline.model)
        entry = one_checkpoint(run.checkpoint, how.registry) if run.checkpoint else None
        budget = gate.config.budget
        if budget is not None and budget.unit == "gpu_hours" and not _knows_gpus(entry, how, served):
            raise ConfigError(
                f"the budget is in GPU-hours, but how many GPUs serve {run.arm} is unknown: its card does not say, "
                "or it is behind --endpoint; add --gpus, or give the budget in rollouts or tokens (800, 20Mtok)"
            )
        check(run.agent, options=run.agent_options, sampling=run.sampling, served=bool(served.endpoints or entry))
        with ExitStack() as stack:  # settings and lock first, and only then a server
            store = stack.enter_context(enter_run(plan.folder, run, self._selection, how.seeds))
            if to_do := store.pending(list(gate.order)).rollouts:
                require(self._selection, (name for name, _, _ in to_do), run, how.where)
            if self._audited and unseen(store.folder, store.progress):
                with self._opened(store, Driver(Submission())) as early:
                    self._audit(store, early.site)  # what an earlier gate left without
            with driving(store, self._selection, served, how.where, self._console, entry, how.registry) as driver:
                site = stack.enter_context(self._opened(store, driver))
                yield Side(
                    plan.role,
                    store,
                    driver.agent,
                    site.workers,
                    site.grade_workers,
                    driver.release,
                    None if how.gpus is None else how.gpus / site.workers,
                    audited=self._audited,
                    site=site.site,
                    services=driver.services,
                )
            self._audit(store, site.site)

    def _opened(self, store: "RunStore", driver: Driver) -> "AbstractContextManager[Opened]":
        from aem_harness.harness.run.identity import Identity

        how, tasks = self._candidate, {task.instance_id: task for task in self._selection.tasks}
        identity, at_a_time = Identity.of(store.folder, store.config), AtATime(how.workers, how.grade_workers)
        return opened(how.where, identity, tasks, driver, at_a_time, self._console, audited=self._audited)

    def _audit(self, store: "RunStore", site: "Site") -> None:
        how = self._candidate
        if how.canary is not None:
            audit(
                store.folder,
                self._selection.tasks,
                store.config,
                store.progress,
                self._console,
                share=1.0 if self._audited else how.canary,
                workers=how.grade_workers,
                site=site,
                again=not self._audited,  # a verdict that is asked for again rests on the same findings
            )


def halved(candidate: Candidate) -> Candidate:
    """For each of two arms that share the machines: half of the workers, at least one."""
    half = {name: max(1, getattr(candidate, name) // 2) for name in ("workers", "grade_workers")}
    return replace(candidate, where=candidate.where.halved(), **half)


def _knows_gpus(entry: "Entry | None", candidate: Candidate, served: Served) -> bool:
    from aem_harness.aem_checkpoints.command import find_program, gpus
    from aem_harness.aem_checkpoints.registry import Registry

    if candidate.gpus is not None or entry is None:
        return candidate.gpus is not None
    return gpus(entry, Registry(candidate.registry), None if served.endpoints else find_program()) is not None


# --- settings ---------------------------------------------------------------------------------------------------------


def baseline_config(baseline: str, dataset: str | None, registry: Path | None) -> "RunConfig":
    """The settings of a baseline that is run afresh: those of a run folder, or of a registered checkpoint's card."""
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import ConfigError

    if (Path(baseline) / "run.json").is_file():
        return RunConfig.load(defaults=_settings(Path(baseline)))
    if not dataset:
        raise ConfigError(f"{baseline} is no run folder; to run a checkpoint of that name, add --set for the tasks")
    entry = one_checkpoint(baseline, registry)
    return RunConfig.load(defaults=card_defaults(entry), dataset=dataset, checkpoint=entry.card.name)


def candidate_config(baseline: "RunConfig | Path", candidate: Candidate) -> "RunConfig":
    """The baseline's own settings with another policy: what differs between the arms is that alone."""
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.errors import ConfigError

    known = _settings(baseline) if isinstance(baseline, Path) else baseline.model_dump(mode="json")
    name = one_checkpoint(candidate.checkpoint, candidate.registry).card.name if candidate.checkpoint else ""
    changed = {
        **known,
        "checkpoint": name,
        "agent": candidate.agent or known["agent"],
        "arm": candidate.arm or name or candidate.agent or "candidate",
    }
    config = RunConfig.load(defaults=changed)
    if config.arm == known["arm"]:
        raise ConfigError(f"both arms would be called {config.arm!r}; name the candidate with --arm")
    return _overridden(config, candidate.overrides)


def _overridden(config: "RunConfig", overrides: Sequence[str]) -> "RunConfig":
    from aem_harness.harness.config import UNCOUNTED, RunConfig
    from aem_harness.harness.errors import ConfigError

    changed = RunConfig.load(overrides=overrides, defaults=config.model_dump(mode="json"))
    if changed.digest != config.digest:
        raise ConfigError(
            f"-c {' -c '.join(overrides)}: both arms of a gate have the baseline's settings, so that only the policy "
            f"differs; what can be set here is {' and '.join(sorted(UNCOUNTED))}"
        )
    return changed


def _settings(folder: Path) -> dict[str, Any]:
    from aem_harness.harness.errors import ConfigError
    from aem_harness.harness.io import read_json

    if not (folder / "run.json").is_file():
        raise ConfigError(f"to run a candidate, --baseline must be a run folder; {folder} has no run.json")
    known: dict[str, Any] = read_json(folder / "run.json")["config"]
    return known
