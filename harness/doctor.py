"""What a run needs from this machine, checked: each finding comes with its remedy."""

import shutil
from collections.abc import Iterator

from aem_harness.harness.errors import AemError, counted
from aem_harness.harness.finding import Finding
from aem_harness.harness.types import Task

GIB = 1 << 30
DISK_WARNING_GIB = 60  # Verified in full needs about 280 GB of images; 60 is a working minimum with pruning


def examine(dataset: str) -> Iterator[Finding]:
    """Look at the engine, its disk, the grader, the dataset and its images, one finding at a time."""
    engine = list(_engine(dataset))
    yield from engine
    yield _grader()
    found, tasks = _dataset(dataset)
    yield found
    if tasks and all(finding.level != "problem" for finding in engine):
        from aem_harness.harness.preflight import look_at_images

        yield from look_at_images(tasks)


def _engine(dataset: str) -> Iterator[Finding]:
    import docker
    from docker.errors import DockerException

    from aem_harness.harness.sandbox.engine import explained
    from aem_harness.harness.sandbox.trial import why_no_start

    try:
        info = docker.from_env().info()
    except DockerException as error:
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
        free = shutil.disk_usage(root).free / GIB
    except OSError:
        yield Finding(level="warning", what="disk", detail=f"{root} is not on this machine: free space unknown")
        return
    low = free < DISK_WARNING_GIB and dataset in ("verified", "full", "lite", "multilingual")
    yield Finding(
        level="warning" if low else "ok",
        what="disk",
        detail=f"{free:.0f} GiB free for images in {root}",
        remedy="all 500 Verified images take about 280 GB: run part of the set, or aem images prune" if low else "",
    )


def _grader() -> Finding:
    from aem_harness.harness.grading.official import grader_version

    return Finding(level="ok", what="grader", detail=grader_version())


def _dataset(source: str) -> "tuple[Finding, list[Task]]":
    from aem_harness.harness.instances.load import load

    try:
        loaded = load(source)
    except AemError as error:
        remedy = "give a reachable hub or a local file with --set"
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
