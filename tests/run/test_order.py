"""Nothing expensive before the cheap checks: settings, lock, what is left to do, one image, and only then a server."""

from pathlib import Path

import docker
import pytest
from typer.testing import CliRunner

from aem_harness.api.running import Selection, open_run
from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.store import PATCH, locked, now
from aem_harness.harness.run.submission import Submission

NOBODY = ["--endpoint", "http://127.0.0.1:9/v1", "--set", "sample", "--no-canary"]  # the discard port: no server


def aem_run(*words: object):
    return CliRunner().invoke(app, ["run", *NOBODY, *(str(word) for word in words)])


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run whose one rollout is done and graded."""
    loaded = load("sample")
    task, folder = loaded.tasks[0], tmp_path / "run"
    config = RunConfig.load(agent="bash", dataset="sample")
    key = {"instance_id": task.instance_id, "seed": 0, "attempt": 0, "at": now()}
    with open_run(folder, config, Selection([task], loaded), Submission(), 1) as store:
        scratch = store.scratch(task.instance_id, 0)
        (scratch / PATCH).write_text("diff")
        ended = {"exit_status": "submitted", "fault": None, "patch_bytes": 4, "completion_tokens": 0}
        store.finish_rollout(scratch, {"event": "rollout", **key, **ended})
        store.finish_grade({"event": "grade", **key, "outcome": "unresolved", "cause": ""})
    return folder


@pytest.mark.parametrize("setting", ["sampling.temprature=1", "agent_options.step=3"])
def test_a_mistyped_setting_is_refused_before_a_server_is_asked(tmp_path, setting):
    done = aem_run("-c", setting, "--out", tmp_path / "r")
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "r").exists()


def test_a_locked_folder_is_refused_before_a_server_is_asked_and_keeps_its_log(finished):
    (finished / "server.log").write_text("of the server that is running")
    with locked(finished):
        done = aem_run("--out", finished)
    assert isinstance(done.exception, ConfigError)
    assert "another aem process" in str(done.exception)
    assert (finished / "server.log").read_text() == "of the server that is running"


def test_another_configuration_in_the_folder_is_refused_before_a_server_is_asked(finished):
    done = aem_run("--out", finished, "-c", "sampling.temperature=0.5")
    assert isinstance(done.exception, ConfigError)
    assert "sampling" in str(done.exception)


@pytest.mark.docker
def test_a_finished_run_needs_no_server(finished, engine):
    done = aem_run("--out", finished, "--slice", "0:1")
    assert done.exit_code == 0, done.exception
    assert "unresolved" in done.output
    again = aem_run("--out", finished, "--slice", "0:1", "-k", "2")
    assert isinstance(again.exception, PolicyFault | ConfigError), "one more seed needs the server"


@pytest.mark.docker
def test_a_limit_that_the_engine_cannot_hold_is_refused_before_a_server_is_asked(tmp_path, engine):
    driver = docker.from_env().info()
    if driver["Driver"] != "overlay2" or ["Backing Filesystem", "xfs"] in driver["DriverStatus"]:
        pytest.skip("this engine's storage driver may limit disk")
    done = aem_run("--out", tmp_path / "r", "--slice", "0:1", "-c", "limits.disk=1g")
    assert isinstance(done.exception, ConfigError)
    assert "limits.disk" in str(done.exception)
