"""The options for images reach whoever works with them, and end with the command."""

import os

import pytest
import typer
from typer.testing import CliRunner

from aem_harness.commands import options

VARIABLES = ("AEM_DISK_BUDGET", "AEM_EVICT_OTHERS", "AEM_IMAGE_MIRROR")
WORDS = ["--disk-budget", "5GB", "--evict-others", "--mirror", "mirror.local"]


@pytest.mark.parametrize("before", [None, "of the user's"])
def test_options_for_images_are_in_the_environment_while_the_command_runs_and_no_longer(monkeypatch, before):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    if before:
        monkeypatch.setenv("AEM_IMAGE_MIRROR", before)
    app, seen = typer.Typer(), []

    @app.command()
    def command(
        disk_budget: options.DiskBudget = None,
        evict_others: options.EvictOthers = False,
        mirror: options.Mirror = None,
    ) -> None:
        seen.append([os.environ.get(variable) for variable in VARIABLES])

    assert CliRunner().invoke(app, WORDS).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0
    assert seen == [["5GB", "True", "mirror.local"], [None, None, before]]
    assert [os.environ.get(variable) for variable in VARIABLES] == [None, None, before]
