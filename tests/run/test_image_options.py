"""The options for images reach whoever fetches images, on this machine and on the nodes of a cluster."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from aem_harness.api.sites import AtATime, Driver, Where, opened
from aem_harness.cli import app as all_commands
from aem_harness.commands.options import Machines, grouped
from aem_harness.harness.config import RunConfig
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import cluster, flow
from aem_harness.harness.run.flow import Supply
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.run.submission import Submission
from aem_harness.harness.types import ImageRef

VARIABLES = {"AEM_DISK_BUDGET": "5GB", "AEM_EVICT_OTHERS": "1", "AEM_IMAGE_MIRROR": "mirror.local"}
WORDS = ["--disk-budget", "5GB", "--evict-others", "--mirror", "mirror.local"]


@pytest.mark.parametrize("by", ["options", "environment"])
def test_options_for_images_and_their_variables_say_the_same_and_change_no_environment(monkeypatch, by):
    for variable, value in VARIABLES.items():
        monkeypatch.delenv(variable, raising=False)
        if by == "environment":
            monkeypatch.setenv(variable, value)
    app, seen, before = typer.Typer(), list[Where](), dict(os.environ)

    def command(machines: Machines) -> None:
        assert dict(os.environ) == before
        seen.append(machines.where())

    app.command()(grouped(command))
    done = CliRunner().invoke(app, WORDS if by == "options" else [])
    assert done.exit_code == 0, done.output
    assert [where.supply for where in seen] == [Supply(budget=5e9, others=True, mirror="mirror.local")]


@pytest.mark.parametrize("name", ["run", "grade", "gate", "audit", "regrade"])
def test_every_command_that_works_in_containers_of_tasks_takes_the_options(name):
    """Two of them had other options for engines, and none for images."""
    command = typer.main.get_command(all_commands).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {"--engine", "--ray", *WORDS[::3], "--evict-others"} - known == set()


def test_a_node_of_a_cluster_pulls_from_the_mirror_of_the_command(monkeypatch):
    """It was a variable of the driver's environment, which nodes do not have: they asked the public registry."""
    task = load("tiny").tasks[0]
    tasks, sent, pulled = {task.instance_id: task}, list[bytes](), list[str | None]()

    @contextmanager
    def nodes_of(address: str, setup: Any, *_: Any) -> Iterator[Any]:
        sent.append(pickle.dumps(setup))
        yield SimpleNamespace(places=[])

    def ensure_image(task: Any, *, mirror: str | None) -> ImageRef:
        pulled.append(mirror)
        return ImageRef(name=task.instance.image, digest="sha256:1", source="pulled")

    monkeypatch.setattr(cluster, "nodes_of", nodes_of)
    monkeypatch.setattr(flow, "ensure_image", ensure_image)
    identity, where = (
        Identity(RunConfig(arm="a", agent="gold"), {"aem.run": "x"}, "d1"),
        Where((), "auto", Supply(mirror="m.local")),
    )
    with opened(where, identity, tasks, Driver(Submission()), AtATime(1, 1), Console(quiet=True)):
        node = cluster.Worker(pickle.loads(sent[0]), tasks, "10.0.0.1")
    try:
        with node._here._places.image(task) as digest:
            assert digest == "sha256:1"
    finally:
        node._here._watch.close()  # type: ignore[union-attr]
        node.supply.__exit__(None, None, None)
    assert pulled == ["m.local"]
