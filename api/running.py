"""From settings to a finished run: `aem_harness.run`, and the steps that grading and gates share with it."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.api.sites import (
    HERE,
    AtATime,
    Driver,
    Opened,
    Recipe,
    Where,
    endpoints_here,
    engines,
    opened,
    shared_gpus,
)
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, EXIT_OK, ConfigError, EnvironmentFault, summed_up
from aem_harness.harness.io import read_json

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from aem_harness.aem_checkpoints.registry import Entry
    from aem_harness.api.serving import Served
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.grading.regrade import Regrade
    from aem_harness.harness.instances.load import Loaded
    from aem_harness.harness.run.auditing import Regrading
    from aem_harness.harness.run.origin import Reuse
    from aem_harness.harness.run.places import Places
    from aem_harness.harness.run.reuse import Verdicts
    from aem_harness.harness.run.sites import Site
    from aem_harness.harness.run.store import Key, Progress, RunStore
    from aem_harness.harness.types import Agent, Task


@dataclass(frozen=True)
class Finished:
    """A run that has ended: `counts` has the rollouts of each outcome, `pending` those that have none yet.

    `ends` are the exit statuses of each outcome's rollouts. `suspect` are the instances that are resolved, but with a
    grave integrity mark. `vain` says what is likely wrong where nearly all ended alike without having worked; `remarks`
    what else a reader has to know. `unaudited`: resolved rollouts whose canaries were lost to infrastructure.
    """

    folder: Path
    arm: str
    counts: "Counter[str]"
    tasks: int
    seeds: int
    suspect: Sequence[str] = ()
    ends: "Mapping[str, Counter[str]]" = field(default_factory=dict)
    vain: str = ""
    remarks: Sequence[str] = ()
    unaudited: int = 0

    @property
    def lost(self) -> int:
        """Rollouts lost to infrastructure."""
        return self.counts["error"]

    @property
    def exit_code(self) -> int:
        return EXIT_INFRASTRUCTURE if self.lost or self.vain or self.unaudited else EXIT_OK

    @property
    def outcomes(self) -> "pd.DataFrame":
        """The outcomes table, one row per rollout."""
        from aem_harness.harness.compare.outcomes import read_run

        return read_run(self.folder).table


@dataclass(frozen=True)
class Tasks:
    """Which instances of a dataset: ids or globs, repositories, difficulties, then a slice, then a seeded sample."""

    ids: Sequence[str] = ()
    repos: Sequence[str] = ()
    difficulties: Sequence[str] = ()
    slice: str = ""
    sample: int | None = None
    sample_seed: int = 0


@dataclass
class Selection:
    """The tasks to run and the dataset they come from."""

    tasks: "list[Task]"
    loaded: "Loaded"


def run(
    agent: str | None = None,
    dataset: str | None = None,
    *,
    seeds: int = 1,
    tasks: Tasks | None = None,
    out: str | Path | None = None,
    endpoint: str | Sequence[str] = (),
    model: str | None = None,
    checkpoint: str | None = None,
    registry: Path | None = None,
    allocation: Path | None = None,
    workers: int = 4,
    grade_workers: int = 2,
    retry_infrastructure: bool = False,
    retry_seconds: float | None = None,
    metrics_port: int | None = None,
    canary: float | None = 0.05,
    reuse: "Reuse | None" = None,
    where: Where = HERE,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    console: "Console | None" = None,
    **settings: Any,
) -> Finished:
    """Drive an agent through instances in containers and grade its patches; the same call again continues the run.

    `endpoint` is the base URL of an OpenAI-compatible server (or several); `checkpoint` a registered one, which is
    served unless there is an endpoint. `allocation` is a CSV of `aem plan --allocate`, instead of `seeds`. `settings`
    are fields of `RunConfig` (`agent_options`, `sampling`, `limits`, ...), over `overrides` (`a.b=value`) and the YAML
    file `config`. `canary` is the share of the resolved rollouts without marks that are graded again with canaries.
    With `reuse`, verdicts of equal patches are reused (docs/grading.md).
    `retry_seconds` is how long one call of the model may take before it is given up and tried again. `metrics_port`
    serves the run's state for Prometheus. `where` the containers are; `workers` and `grade_workers` are those of all
    engines together.

    Raises ConfigError and DataError for settings and files that make no sense, EnvironmentFault where no engine is.
    """
    from aem_harness.agents.build import check
    from aem_harness.api.serving import Served, card_defaults, one_checkpoint
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.run.submission import Submission

    if allocation and seeds > 1:
        raise ConfigError("an allocation sets the seeds of every instance: remove the seeds")
    console = console or quiet()
    entry = one_checkpoint(checkpoint, registry) if checkpoint else None
    given = {"agent": agent, "dataset": dataset, "checkpoint": entry.card.name if entry else None, **settings}
    asked = RunConfig.load(config, overrides, defaults=card_defaults(entry) if entry else None, **given)
    selection = choose(asked.dataset, console, tasks)
    folder = Path(out) if out else Path("results") / f"{asked.arm}-{asked.digest}"
    counts = {task.instance_id: seeds for task in selection.tasks}
    if allocation:
        selection, counts = allocated(selection, allocation, folder)
    served = Served([endpoint] if isinstance(endpoint, str) else list(endpoint), model, retry_seconds)
    check(asked.agent, options=asked.agent_options, sampling=asked.sampling, served=bool(served.endpoints or entry))
    keys = keys_of(counts)
    # Settings, lock, what is left to do, and only then what is expensive.
    with ExitStack() as stack:
        store = stack.enter_context(enter_run(folder, asked, selection, counts))
        if metrics_port is not None:
            from aem_harness.harness.report import metrics

            stack.enter_context(metrics.served(folder, metrics_port))
        if reuse:
            from aem_harness.harness.run.reuse import refuse_others

            refuse_others(reuse, asked, selection.loaded.digest)
        driver = Driver(Submission())  # drives nothing: where only gradings are left
        if to_do := store.pending(keys, retry_infrastructure=retry_infrastructure).rollouts:
            require(selection, (name for name, _, _ in to_do), asked, where)
            driver = stack.enter_context(driving(store, selection, served, where, console, entry, registry))
        return perform(
            store,
            selection,
            driver,
            keys,
            console,
            AtATime(workers, grade_workers),
            retry_infrastructure=retry_infrastructure,
            canary=canary,
            reuse=reuse,
            where=where,
        )


@contextmanager
def driving(
    store: "RunStore",
    selection: Selection,
    served: "Served",
    where: Where,
    console: "Console",
    entry: "Entry | None" = None,
    registry: Path | None = None,
) -> Iterator[Driver]:
    """The agent of a run, entered in its folder, with its server up until the end of the block.

    `entry` is the checkpoint that is served, unless `served` has endpoints.
    """
    from aem_harness.agents.build import as_begun, build
    from aem_harness.api.serving import connect

    config = store.config
    options = as_begun(config.agent, config.agent_options, store.begun("agent"))
    serving = connect(
        endpoints_here(where, served.endpoints, served=entry is not None),
        served.model,
        config.sampling,
        entry=entry,
        registry=registry,
        log=store.folder / "server.log",
        console=console,
        retry_seconds=served.retry_seconds,
    )
    with serving as connected:
        agent = build(config.agent, tasks=selection.tasks, policy=connected.policy, options=options)
        settle(store, agent, connected.fingerprint)
        recipe = Recipe(  # for the nodes of a cluster
            agent=config.agent,
            options=options,
            sampling=config.sampling,
            model=connected.policy.model if connected.policy else "",
            endpoints=tuple(served.endpoints),
            key=os.environ.get("OPENAI_API_KEY"),
            gpus=shared_gpus(where, served.endpoints, connected.gpus),
            retry_seconds=served.retry_seconds,
            folder=str(Path.cwd()),
        )
        yield Driver(agent, recipe, connected.release, connected.services)


def quiet() -> "Console":
    """A console that prints nothing."""
    from rich.console import Console

    return Console(quiet=True)


def keys_of(counts: Mapping[str, int]) -> "list[Key]":
    """The rollouts of a run in their order: seed 0 of every instance, then seed 1, ..."""
    most = max(counts.values(), default=0)
    return [(name, seed) for seed in range(most) for name, k in counts.items() if seed < k]


def choose(dataset: str, console: "Console", tasks: Tasks | None = None) -> Selection:
    """Load a dataset, say which of its rows are bad, and select."""
    from aem_harness.harness.instances.load import load
    from aem_harness.harness.instances.select import select

    loaded = load(dataset)
    for problem in summed_up(loaded.problems):
        console.print(f"[yellow]warning:[/] {problem}; the row is left out", highlight=False, soft_wrap=True)
    return Selection(select(loaded.tasks, **vars(tasks or Tasks())), loaded)


def allocated(selection: Selection, path: Path, folder: Path) -> "tuple[Selection, dict[str, int]]":
    """The selected instances that an allocation names, and the seeds of each, for a run in `folder`."""
    from aem_harness.harness.run.seeds import read_allocation, refuse_later_allocation

    seeds = read_allocation(path)
    unknown = sorted(set(seeds) - {task.instance_id for task in selection.loaded.tasks})
    if unknown:
        raise ConfigError(
            f"{path} names {len(unknown)} instances that {selection.loaded.name} lacks: {unknown[0]}, ..."
        )
    tasks = [task for task in selection.tasks if task.instance_id in seeds]
    if not tasks:
        raise ConfigError(
            f"none of the {len(selection.tasks)} selected instances is in {path}: select those that it names"
        )
    seeds = {task.instance_id: seeds[task.instance_id] for task in tasks}
    if (folder / "run.json").is_file():
        refuse_later_allocation(seeds, read_json(folder / "run.json")["plan"], folder)
    return Selection(tasks, selection.loaded), seeds


def open_run(
    folder: Path,
    config: "RunConfig",
    selection: Selection,
    agent: "Agent",
    seeds: "int | Mapping[str, int]",
    fingerprint: "Mapping[str, Any] | None" = None,
) -> "RunStore":
    """Create the run folder, or enter it again under the same configuration and the same server.

    `seeds` are the rollouts of every instance, or how many each gets.
    """
    store = enter_run(folder, config, selection, seeds)
    try:
        settle(store, agent, fingerprint)
    except BaseException:
        store.__exit__()
        raise
    return store


def enter_run(folder: Path, config: "RunConfig", selection: Selection, seeds: "int | Mapping[str, int]") -> "RunStore":
    """The run folder, locked, found to be this configuration's, and read, before there is an agent or a server.

    `settle` must follow before anything is written into it.
    """
    from aem_harness import __version__
    from aem_harness.harness.grading.official import grader_version, require_parser
    from aem_harness.harness.run.seeds import plan_of
    from aem_harness.harness.run.store import RunStore

    for task in selection.tasks:
        require_parser(task)
    names = [task.instance_id for task in selection.tasks]
    loaded = selection.loaded
    facts = {
        "plan": plan_of(dict.fromkeys(names, seeds) if isinstance(seeds, int) else seeds),
        "dataset": {"name": loaded.name, "digest": loaded.digest, "n": len(loaded.tasks)},
        "versions": {"aem": __version__, "swebench": grader_version().removeprefix("swebench ")},
        "tasks": {task.instance_id: _described(task) for task in selection.tasks},
    }
    return RunStore(folder, config, facts, settled=False)


def settle(store: "RunStore", agent: "Agent", fingerprint: "Mapping[str, Any] | None" = None) -> None:
    """Say who drives the run, and by which server; ConfigError where the folder was begun by others."""
    store.settle({"agent": dict(agent.describe()), "fingerprint": dict(fingerprint or {})})


def require(selection: Selection, instance_ids: "Iterable[str]", config: "RunConfig", where: Where = HERE) -> None:
    """The cheap part of what `aem doctor` looks at: an image of the run can be worked in, under the run's limits.

    Of several engines or nodes the first is looked at. Raises ConfigError or EnvironmentFault with the remedy.
    """
    from aem_harness.harness.preflight import unusable
    from aem_harness.harness.sandbox.engine import HERE as ENGINE
    from aem_harness.harness.sandbox.engine import at

    known = {task.instance_id: task for task in selection.tasks}
    tasks = list({known[name].instance.image: known[name] for name in instance_ids}.values())[:3]
    if where.ray:
        from aem_harness.harness.run.cluster import connect, on_first_node

        connect(where.ray)
        why = on_first_node(partial(unusable, fetch=False), tasks, config.limits)  # a node may take long to get one
    else:
        with at(next(iter(engines(where)), ENGINE)):
            why = unusable(tasks, config.limits, mirror=where.supply.mirror if where.supply else None)
    if why:
        raise EnvironmentFault(why)


def _described(task: "Task") -> dict[str, str]:
    """What comparisons group tasks by."""
    return task.instance.model_dump(include={"repo", "difficulty", "created_at"})


def perform(
    store: "RunStore",
    selection: Selection,
    driver: Driver,
    keys: "Sequence[Key]",
    console: "Console",
    at_a_time: AtATime,
    *,
    retry_infrastructure: bool = False,
    canary: float | None = None,
    reuse: "Reuse | None" = None,
    places: "Places | None" = None,
    where: Where = HERE,
) -> Finished:
    """Do what is pending among `keys` under a live view, then write the official predictions and reports.

    `canary`: the share of the resolved rollouts without marks that are then graded again with canaries, beside all
    marked ones; None: no canaries. `reuse`: which verdicts of equal patches are reused. `places` stand in for
    containers of the engine here.
    """
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.reuse import Verdicts

    tasks = {task.instance_id: task for task in selection.tasks}
    if places is None and where.here:
        keys = together(keys, selection.tasks)
    identity = Identity.of(store.folder, store.config)
    known = Verdicts(store, tasks, identity.dataset_digest, reuse, here=where.here) if reuse else None
    with opened(where, identity, tasks, driver, at_a_time, console, places=places) as here:
        if known:
            known.architecture = here.site.architecture()
        _say_what_is_found(store, here.site.reap(), console)
        _run(store, selection, driver, keys, console, here, known, retry_infrastructure=retry_infrastructure)
        unaudited = 0
        if canary is not None:
            how: dict[str, Any] = {"share": canary, "workers": here.grade_workers, "site": here.site}
            unaudited = audit(store.folder, selection.tasks, store.config, store.progress, console, **how)
    return _finished(store, keys, unaudited)


def _say_what_is_found(store: "RunStore", reaped: int, console: "Console") -> None:
    """What an earlier command left of the run."""
    from aem_harness.harness.sandbox.reaping import say_reaped

    say_reaped(reaped, console)
    for (instance_id, seed), wrong in store.damaged.items():
        console.print(f"[yellow]warning:[/] {instance_id} seed {seed}: {wrong}", highlight=False, soft_wrap=True)
    for path in store.stray:
        console.print(f"[yellow]warning:[/] {path} is no rollout of this run: ignored", highlight=False, soft_wrap=True)


def _run(
    store: "RunStore",
    selection: Selection,
    driver: Driver,
    keys: "Sequence[Key]",
    console: "Console",
    here: Opened,
    verdicts: "Verdicts | None",
    *,
    retry_infrastructure: bool,
) -> None:
    """Roll out and grade what is pending, under a live view; the reports are written however it ends."""
    from aem_harness.harness.facts.kept import Keeper
    from aem_harness.harness.report.live import RunView, warner
    from aem_harness.harness.run.counts import outcomes
    from aem_harness.harness.run.reports import write_reports
    from aem_harness.harness.run.runner import Runner
    from aem_harness.harness.run.schedule import Durations, longest_first

    pending = store.pending(list(keys), retry_infrastructure=retry_infrastructure)
    undone = {(i, s) for i, s, _ in pending.rollouts} | set(pending.grades)
    known = outcomes(store, [key for key in keys if key not in undone])
    durations = Durations(known.rollout for known in store.progress.values())
    with Keeper(store.folder) as facts, RunView(console, store.config.arm, len(keys), known) as view:

        def on_event(kind: str, event: dict[str, Any]) -> None:
            view(kind, event)
            if kind == "rollout":  # as it is journaled, with hashes
                facts.add(store.progress[event["instance_id"], event["seed"]].rollout)
                durations.add(event)

        runner = Runner(
            store,
            {task.instance_id: task for task in selection.tasks},
            driver.agent,
            workers=here.workers,
            grade_workers=here.grade_workers,
            on_event=on_event,
            order=longest_first(durations, here.workers),
            release=driver.release,
            site=here.site,
            services=driver.services,
            verdicts=verdicts,
            say=warner(console),
        )
        try:
            runner.run(keys, retry_infrastructure=retry_infrastructure)
        finally:
            write_reports(store.folder, selection.tasks, store.progress)


def _finished(store: "RunStore", keys: "Sequence[Key]", unaudited: int) -> Finished:
    from aem_harness.harness.run.alike import alike
    from aem_harness.harness.run.counts import ends, outcomes, remarks

    done = [store.progress[key].rollout for key in keys if key in store.progress]
    return Finished(
        store.folder,
        store.config.arm,
        outcomes(store, keys),
        tasks=len({name for name, _ in keys}),
        seeds=1 + max((seed for _, seed in keys), default=0),
        suspect=_suspect(store.folder),
        ends=ends(store, keys),
        vain=alike(done) if store.config.stop_alike else "",
        remarks=remarks(store, keys),
        unaudited=unaudited,
    )


def together(keys: "Sequence[Key]", tasks: "Sequence[Task]") -> "list[Key]":
    """The rollouts of one instance after the other where images have still to be fetched: each is then needed once."""
    from aem_harness.harness.sandbox.images import all_here

    wanted = {task.instance_id for task in tasks if not task.dockerfile} & {name for name, _ in keys}
    if not wanted or all_here({task.instance.image for task in tasks if task.instance_id in wanted}):
        return list(keys)
    first = {name: at for at, name in reversed(list(enumerate(name for name, _ in keys)))}
    return sorted(keys, key=lambda key: first[key[0]])


def audit(
    folder: Path,
    tasks: "Sequence[Task]",
    config: "RunConfig",
    progress: "Mapping[Key, Progress]",
    console: "Console",
    *,
    share: float,
    workers: int,
    again: bool = True,
    site: "Site | None" = None,
) -> int:
    """Grade resolved rollouts again with canaries, and print one line with the findings; how many were lost.

    `again`: also those for which an earlier attempt found nothing. `site` None: the local engine.
    """
    from aem_harness.harness.run.auditing import line
    from aem_harness.harness.run.reports import audit_run

    lost: list[Key] = []
    with _regrading(folder, config, workers, _telling(console, "canaries", lost), site, console) as how:
        found = audit_run(folder, tasks, progress, how, share=share, again=again)
    if found:
        console.print(line(found), highlight=False, soft_wrap=True)
    return len(lost)


def audit_variants(
    folder: Path,
    tasks: "Sequence[Task]",
    config: "RunConfig",
    progress: "Mapping[Key, Progress]",
    console: "Console",
    *,
    workers: int,
    site: "Site | None" = None,
) -> int:
    """Run resolved rollouts with the held-out variants of their instances, if any, and print the findings.

    Returns how many were lost to infrastructure.
    """
    from aem_harness.harness.run.auditing import variants_line
    from aem_harness.harness.run.reports import run_variants

    lost: list[Key] = []
    with _regrading(folder, config, workers, _telling(console, "variants", lost), site, console) as how:
        keys = run_variants(folder, tasks, progress, how)
    if keys:
        console.print(variants_line(folder, keys), highlight=False, soft_wrap=True)
    return len(lost)


@contextmanager
def _regrading(
    folder: Path,
    config: "RunConfig",
    workers: int,
    tell: "Callable[[Key, Regrade], None]",
    site: "Site | None",
    console: "Console",
) -> "Iterator[Regrading]":
    """How a run is graded again: at its site, where images are fetched meanwhile, or in the local engine."""
    from aem_harness.harness.report.live import warner
    from aem_harness.harness.run.auditing import Regrading
    from aem_harness.harness.run.sites import supplied

    how = Regrading(workers, config.grade_timeout, config.limits, tell)
    if site is None:
        yield how
        return
    with supplied(site, folder, config.outage_seconds, warner(console)) as end:
        yield replace(how, audit=site.audit, end=end)


def _telling(console: "Console", what: str, lost: "list[Key]") -> "Callable[[Key, Regrade], None]":
    """A printer of one line per regrade, which notes those that were lost to infrastructure."""
    from aem_harness.harness.report.why import printable

    def tell(key: "Key", found: "Regrade") -> None:
        if found.lost:
            lost.append(key)
        why = f" ({printable(found.reason)})" if found.reason else ""
        console.print(f"{what}: {key[0]} seed {key[1]}: {found.state}{why}", style="dim", markup=False)

    return tell


def _suspect(folder: Path) -> list[str]:
    marked = read_json(folder / "audit.json")
    suspect = [
        entry["instance_id"]
        for entry in marked
        if entry["outcome"] == "resolved" and any(mark["grave"] for mark in entry["marks"])
    ]
    return list(dict.fromkeys(suspect))
