"""Where a run's containers are: the local engine, a pool of engines, or the nodes of a Ray cluster."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.harness.errors import AemError, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.finding import Finding
    from aem_harness.harness.run.flow import Supply
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.outages import Service
    from aem_harness.harness.run.places import Places
    from aem_harness.harness.run.pool import Pool
    from aem_harness.harness.run.sites import Site
    from aem_harness.harness.sandbox.engine import Engine
    from aem_harness.harness.types import Agent, Task

NODE = "{node}"  # in an endpoint: the address of the node that asks it


@dataclass(frozen=True)
class Where:
    """`engines` are addresses, each with an optional `*SLOTS`, its number of concurrent rollouts; none: the local one.

    An address is `ssh://[user@]host[:port][/path/of/socket]`, `tcp://host:port`, `unix:///path` or `context:NAME`.
    `ray` is the address of a Ray cluster, or "auto", whose nodes share the work instead. `supply` says how images get
    there; None: as the environment says.
    """

    engines: Sequence[str] = ()
    ray: str = ""
    supply: "Supply | None" = None

    @property
    def here(self) -> bool:
        """Is it the local engine alone?"""
        return not self.engines and not self.ray

    def halved(self) -> "Where":
        """For each of two runs that share the engines."""
        slots = [_parsed(one) for one in self.engines]
        halves = [f"{address}*{max(1, count // 2)}" if count else address for address, count in slots]
        return replace(self, engines=tuple(halves))


HERE = Where()


@dataclass(frozen=True)
class AtATime:
    """Concurrent rollouts and gradings, on all sites together; `share` is what `*SLOTS` of an engine counts."""

    workers: int
    grade_workers: int
    share: str = "workers"


@dataclass(frozen=True)
class Recipe:
    """How to build a run's agent on another machine. `{node}` in an endpoint is that machine's address.

    `gpus` are those of an endpoint that only that machine asks; `folder` is where modules of the user's are looked for.
    """

    agent: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    endpoints: Sequence[str] = ()
    key: str | None = None
    gpus: float | None = None
    retry_seconds: float | None = None
    folder: str = ""

    def __call__(self, tasks: "Mapping[str, Task]", address: str) -> "tuple[Agent, Callable[[], None]]":
        """The agent, and what wakes it when the run ends early."""
        from aem_harness.agents.build import build, endpoint_policy
        from aem_harness.harness.run.submission import Submission

        if self.agent == Submission.name:
            return Submission(), lambda: None
        if self.folder and Path(self.folder).is_dir() and self.folder not in sys.path:
            sys.path.append(self.folder)
        policy = None
        if self.endpoints:
            urls = [url.replace(NODE, address) for url in self.endpoints]
            policy = endpoint_policy(
                self.model,
                urls,
                self.sampling,
                api_key=self.key,
                gpus=self.gpus,
                retry_seconds=self.retry_seconds,
            )
        agent = build(self.agent, options=self.options, tasks=list(tasks.values()), policy=policy)
        return agent, policy.close if policy else lambda: None


GRADING = Recipe(agent="predictions")


@dataclass(frozen=True)
class Driver:
    """Who drives the rollouts of a run: `agent` here, or what `recipe` builds on the nodes of a cluster.

    `release` wakes whoever waits for the policy when the run ends early; `services` are what the policy stands on.
    """

    agent: "Agent"
    recipe: Recipe = GRADING
    release: Callable[[], None] = lambda: None
    services: "Mapping[str, Service]" = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A site, and its numbers of concurrent rollouts and gradings."""

    site: "Site"
    workers: int
    grade_workers: int


@contextmanager
def opened(
    where: Where,
    identity: "Identity",
    tasks: "Mapping[str, Task]",
    driver: Driver,
    at_a_time: AtATime,
    console: "Console",
    *,
    audited: bool = False,
    places: "Places | None" = None,
) -> Iterator[Opened]:
    """The sites of a run, until the end of the block, when the containers that are left over are removed there.

    `audited`: what is resolved is graded again with canaries before its grade counts. `places` stand in for containers
    of the engine here. Raises ConfigError for addresses that make no sense, EnvironmentFault where no engine answers.
    """
    from aem_harness.harness.report.live import warner
    from aem_harness.harness.run.pool import Place, Pool
    from aem_harness.harness.run.sites import Here, containers

    if where.here:
        site = Here(tasks, driver.agent, places or containers(identity, where.supply, audited=audited), identity)
        yield Opened(site, at_a_time.workers, at_a_time.grade_workers)
        return

    tell = warner(console)
    if where.ray:
        from aem_harness.harness.run.cluster import Setup, nodes_of

        def slots_of(nodes: int) -> Mapping[str, int]:
            return {"rollout": -(-at_a_time.workers // nodes), "grade": -(-at_a_time.grade_workers // nodes)}

        setup = Setup(identity, driver.recipe, audited, where.supply)
        with nodes_of(where.ray, setup, tasks, slots_of, tell) as pool:
            _tell_of_architectures(pool, tell)
            yield Opened(pool, at_a_time.workers, at_a_time.grade_workers)
        return
    slots = _slots(where.engines, at_a_time)
    with ExitStack() as stack:
        members = []
        for engine, (rollouts, gradings) in zip(engines(where), slots, strict=True):
            places = containers(identity, where.supply, audited=audited, engine=engine)
            site = Here(tasks, driver.agent, places, identity, engine=engine, watched=True)
            members.append(Place(site, {"rollout": rollouts, "grade": gradings}))
        pool = stack.enter_context(Pool(members, tasks, tell=tell, patience=identity.config.outage_seconds))
        _refuse_twice([place.site.engine for place in members if place.up])  # type: ignore[attr-defined]
        _tell_of_architectures(pool, tell)
        yield Opened(pool, sum(one for one, _ in slots), sum(one for _, one in slots))


def engines(where: Where) -> "list[Engine]":
    """The engines by their addresses. Raises ConfigError for one that makes no sense, or stands there twice."""
    from aem_harness.harness.sandbox.engine import Engine

    addresses = [_parsed(one)[0] for one in where.engines]
    if twice := [address for address in dict.fromkeys(addresses) if addresses.count(address) > 1]:
        raise ConfigError(f"engine {twice[0]} is named twice: give it more slots instead, as {twice[0]}*16")
    return [Engine(address) for address in addresses]


def endpoints_here(where: Where, endpoints: Sequence[str], *, served: bool) -> list[str]:
    """The endpoints as this process asks them: `{node}` is each node of the Ray cluster in turn.

    Raises ConfigError for `{node}` without a cluster, and where the model would be served here, for this machine alone.
    """
    if where.ray and served and not endpoints:
        raise ConfigError("with --ray the model must be served for all nodes: aem serve, then name it with --endpoint")
    if not any(NODE in url for url in endpoints):
        return list(endpoints)
    if not where.ray:
        raise ConfigError(f"{NODE} in an endpoint is a node of a Ray cluster: add --ray, or name the server")
    from aem_harness.harness.run.cluster import alive, connect

    connect(where.ray)
    addresses = dict.fromkeys(node.address for node in alive())
    return list(dict.fromkeys(url.replace(NODE, address) for url in endpoints for address in addresses))


def shared_gpus(where: Where, endpoints: Sequence[str], gpus: float | None) -> float | None:
    """The GPUs of an endpoint that one node's requests are charged: its own, or its share where all nodes ask it."""
    if not where.ray or gpus is None or all(NODE in url for url in endpoints):
        return gpus
    from aem_harness.harness.run.cluster import alive

    return gpus / len(alive())


def examinations(where: Where, dataset: str) -> "Iterator[Finding]":
    """What `aem doctor` finds of the engine here, of each engine of a pool, or of each node of a cluster."""
    from aem_harness.harness.doctor import examine, examine_engines, examine_nodes

    if where.ray:
        return examine_nodes(where.ray, dataset)
    return examine(dataset) if where.here else examine_engines(engines(where), dataset)


def split(given: Sequence[str]) -> tuple[str, ...]:
    """The addresses of `--engine`, which may be repeated and may list several with commas."""
    return tuple(part.strip() for one in given for part in one.split(",") if part.strip())


def _parsed(one: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+?)(?:\*([1-9][0-9]*))?", one)
    if not found:
        raise ConfigError(f"engine {one!r} makes no sense: give an address, or ADDRESS*SLOTS")
    return found[1], int(found[2]) if found[2] else None


def _slots(given: Sequence[str], at_a_time: AtATime) -> list[tuple[int, int]]:
    """Rollouts and gradings at a time of each engine: as it says, else an even share of all."""
    own = [_parsed(one)[1] for one in given]
    main = getattr(at_a_time, at_a_time.share)
    mains = [slots or max(1, round(main / len(own))) for slots in own]
    if at_a_time.share == "grade_workers":
        return [(max(1, round(at_a_time.workers / len(own))), slots) for slots in mains]
    total = sum(mains)
    return [(slots, max(1, round(at_a_time.grade_workers * slots / total))) for slots in mains]


def _tell_of_architectures(pool: "Pool", tell: Callable[[str], None]) -> None:
    """Say where engines differ in what verdicts may depend on."""
    found: dict[str, str] = {}
    for place in pool.places:
        if place.up and (one := place.site.architecture()):
            found.setdefault(one, place.site.name)
    if len(found) > 1:
        which = ", ".join(f"{name}: {one}" for one, name in found.items())
        tell(
            f"engines of different architectures work together ({which}): each needs images of its own, and verdicts "
            "may depend on it; the journal has the architecture of each grade"
        )


def _refuse_twice(found: "Sequence[Engine]") -> None:
    """Two addresses of one engine would work it twice as hard as asked, and reap each other's containers."""
    from aem_harness.harness.sandbox.engine import at, identity

    known: dict[str, Engine] = {}
    for engine in found:
        try:
            with at(engine):
                name = identity()
        except (AemError, OSError):  # it went away just now
            continue
        if name in known:
            raise ConfigError(f"{known[name]} and {engine} are the same engine: name it once")
        known[name] = engine
