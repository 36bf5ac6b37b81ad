"""What a run needs from this machine, checked: each finding comes with its remedy."""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from aem_harness.harness.errors import AemError, counted, in_one_line
from aem_harness.harness.finding import Finding
from aem_harness.harness.sandbox.engine import Engine, at, current, explained, on_this_machine
from aem_harness.harness.types import Task

GIB = 1 << 30
CLOCK_SECONDS = 2.0  # that a node's clock may be off
NODE_SECONDS = 300.0  # that a look at a node may take
DISK_WARNING_GIB = 60  # Verified in full needs about 280 GB of images; 60 is a working minimum with pruning


def examine(dataset: str) -> Iterator[Finding]:
    """Look at the engine, its disk, the grader, the dataset and its images, one finding at a time."""
    found, tasks = _dataset(dataset)
    engine, images = _machine(dataset, tasks)
    yield from (*engine, _grader(), found, *images)


def examine_engines(engines: Sequence[Engine], dataset: str) -> Iterator[Finding]:
    """The same for each of several engines, and whether images of one name are the same on all."""
    found, tasks = _dataset(dataset)
    yield _grader()
    yield found
    images = {}
    for engine in engines:
        with at(engine):
            seen, images[str(engine)] = _node(dataset, tasks)
        yield from (one.model_copy(update={"detail": f"{engine}: {one.detail}"}) for one in seen)
    yield from _same_images(images)


def examine_nodes(address: str, dataset: str) -> Iterator[Finding]:
    """The same for every node of a Ray cluster, and whether their versions and clocks are those of this process.

    The dataset is read here alone, as by a run.
    """
    from aem_harness.harness.run.cluster import Looker, connect, lookers

    try:
        connect(address)
    except AemError as error:
        yield Finding(level="problem", what="Ray", detail=str(error), remedy="ray status says what is there")
        return
    import ray

    found, tasks = _dataset(dataset)
    sent = ray.put(tasks)
    ours, images = Looker().versions(), {}
    with lookers() as nodes:
        yield Finding(level="ok", what="Ray", detail=f"Ray {ours['Ray']}, {counted(len(nodes), 'node')}")
        yield found
        looks = [actor.call.remote(_node, dataset, sent) for _, actor in nodes]  # all at once
        others = [actor.versions.remote() for _, actor in nodes]
        for (info, actor), look, version in zip(nodes, looks, others, strict=True):
            try:
                seen, images[str(info)] = ray.get(look, timeout=NODE_SECONDS)
                versions = ray.get(version, timeout=NODE_SECONDS)
                before = time.time()
                its = ray.get(actor.now.remote(), timeout=NODE_SECONDS)
                off = max(before - its, its - time.time(), 0.0)
            except (AemError, ray.exceptions.RayError) as error:
                images.pop(str(info), None)
                yield Finding(
                    level="problem",
                    what="node",
                    detail=f"{info} does not answer: {in_one_line(error)}",
                    remedy="install aem-harness there as it is here, and look at the node's Ray logs",
                )
                continue
            yield from _of_node(str(info), ours, versions, off)
            yield from (one.model_copy(update={"detail": f"{info}: {one.detail}"}) for one in seen)

    yield from _same_images(images)


def _node(dataset: str, tasks: "list[Task]") -> tuple[list[Finding], dict[str, str]]:
    """The findings of one engine of several, and its images."""
    engine, images = _machine(dataset, tasks)
    return [*engine, *images], _images(tasks)


def _machine(dataset: str, tasks: "list[Task]") -> tuple[list[Finding], list[Finding]]:
    """What is found of the engine, and of the images of the set, if the engine has no problem."""
    from aem_harness.harness.preflight import look_at_images

    engine = list(_of_engine(dataset))
    sound = all(finding.level != "problem" for finding in engine)
    return engine, list(look_at_images(tasks)) if tasks and sound else []


def _images(tasks: "list[Task]") -> dict[str, str]:
    """The content of each image of the set that the engine has."""
    from aem_harness.harness.sandbox.images import local_images

    try:
        return {image.name: image.digest for image in local_images(tasks)}
    except AemError:
        return {}  # said already


def _same_images(images: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Is what nodes call the same image the same? Images that were built on each are not."""
    contents: dict[str, set[str]] = defaultdict(set)
    for those in images.values():
        for name, digest in those.items():
            contents[name].add(digest)
    others = sorted(name for name, digests in contents.items() if len(digests) > 1)
    here = ", ".join(f"{node}: {len(those)}" for node, those in images.items())
    yield Finding(
        level="warning" if others else "ok",
        what="images",
        detail=f"{len(others)} are not the same on all nodes, the first: {others[0]}" if others else f"there ({here})",
        remedy="pull them, or build them once and docker save and load them: verdicts may depend on them"
        if others
        else "",
    )


def _of_node(node: str, ours: dict[str, str], theirs: dict[str, str], off: float) -> Iterator[Finding]:
    """What is to be said of a node's versions and its clock, `off` seconds from the one here."""
    others = [f"{name} {theirs[name]}, here {ours[name]}" for name in ours if theirs[name] != ours[name]]
    yield Finding(
        level="problem" if others else "ok",
        what="versions",
        detail=f"{node}: {'; '.join(others) or 'as here'}",
        remedy="install the same versions on every node: verdicts must not depend on where they are made"
        if others
        else "",
    )
    yield Finding(
        level="warning" if off > CLOCK_SECONDS else "ok",
        what="clock",
        detail=f"{node}: {off:.1f} s from the one here" if off > CLOCK_SECONDS else f"{node}: as here",
        remedy="set it by NTP: times of rollouts are compared" if off > CLOCK_SECONDS else "",
    )


def _of_engine(dataset: str) -> Iterator[Finding]:
    from docker.errors import DockerException

    from aem_harness.harness.sandbox.trial import why_no_start

    try:
        info = current().connect(timeout=60).info()
    except (DockerException, AemError) as error:
        yield Finding(
            level="problem",
            what="engine",
            detail=f"no Docker engine answers: {explained(error)}",
            remedy="start Docker, or as root on Debian/Ubuntu: make engine",
        )
        return
    yield Finding(
        level="ok",
        what="engine",
        detail=f"Docker {info['ServerVersion']}, {info['Driver']}, {info['NCPU']} CPUs, {info['MemTotal'] // GIB} GiB",
    )
    if wrong := why_no_start():
        yield Finding(
            level="problem",
            what="engine",
            detail=f"no container can start; the engine says: {wrong}",
            remedy="repair the engine first (limits, cgroups, storage): docker run or podman run says the same",
        )
    else:
        yield Finding(level="ok", what="engine", detail="a container starts")
    root = info["DockerRootDir"]
    try:
        if not on_this_machine(current()):
            raise FileNotFoundError(root)
        free = shutil.disk_usage(root).free / GIB
    except OSError:
        yield Finding(level="warning", what="disk", detail=f"{root} is not on this machine: free space unknown")
        return
    low = free < DISK_WARNING_GIB and dataset in ("verified", "full", "lite", "multilingual")
    yield Finding(
        level="warning" if low else "ok",
        what="disk",
        detail=f"{free:.0f} GiB free for images in {root}",
        remedy="the 500 Verified images take about 280 GB: run a part, or bound them with --disk-budget" if low else "",
    )


def _grader() -> Finding:
    from aem_harness.harness.grading.official import grader_version

    return Finding(level="ok", what="grader", detail=grader_version())


def _dataset(source: str) -> "tuple[Finding, list[Task]]":
    from aem_harness.harness.instances.load import load

    try:
        loaded = load(source)
    except AemError as error:
        remedy = "give --set a name that the hub has, or a local file"
        return Finding(level="problem", what="dataset", detail=str(error), remedy=remedy), []
    bad = len(loaded.problems)
    found = Finding(
        level="warning" if bad else "ok",
        what="dataset",
        detail=f"{loaded.name}: {counted(len(loaded.tasks), 'instance')}, digest {loaded.digest[:12]}"
        + f", {counted(bad, 'invalid row')}" * bool(bad),
        remedy=loaded.problems[0] if bad else "",
    )
    return found, list(loaded.tasks)
