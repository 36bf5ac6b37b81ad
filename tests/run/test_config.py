"""Run settings: what is part of a run's identity, and how bad settings are reported."""

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError


def test_yaml_dotted_overrides_and_options_merge_left_to_right(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("arm: a\nlimits: {cpus: 4}\ngrade_timeout: 60\n")
    config = RunConfig.load(path, ["limits.memory=8g", "grade_timeout=90"], arm="b", agent=None)
    assert (config.limits.cpus, config.limits.memory, config.grade_timeout, config.arm) == (4, "8g", 90, "b")


def test_the_digest_follows_every_setting_and_nothing_else():
    base = RunConfig(arm="a")
    assert base.digest == RunConfig(arm="a").digest
    assert base.digest != RunConfig(arm="a", agent_network=True).digest


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["limits.cpus=-1"], "limits.cpus"),
        (["nonsense=1"], "nonsense"),
        (["no-equals"], "key=value"),
        (["arm.x=1"], "arm"),
        (["outage_seconds=.inf"], "outage_seconds"),
        (["outage_seconds=1e400"], "outage_seconds"),
        (["grade_timeout=inf"], "grade_timeout"),
        (["grade_timeout=1e30"], "grade_timeout"),
        (["limits.cpus=.inf"], "limits.cpus"),
        (["limits.cpus=1e30"], "limits.cpus"),
        (["limits.pids=99999999999999999999"], "limits.pids"),
        (["sampling.temperature=.nan"], "sampling.temperature"),
        (["agent_options.limits=[1, {steps: -.inf}]"], "agent_options.limits"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(overrides, named):
    with pytest.raises(ConfigError, match=named) as caught:
        RunConfig.load(None, ["arm=a", *overrides])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--retry-seconds"],
        ["plan", "--training-hours"],
        ["status", "/none", "--every"],
        ["determinism", "--temperature"],
        ["gate", "--gpus"],
        ["gate", "--alpha"],
        ["report", "/none", "--embed"],
    ],
    ids=" ".join,
)
def test_a_number_on_the_command_line_is_finite(words, value):
    """They ended in a traceback, in an endless wait, or were ignored."""
    done = CliRunner().invoke(app, [*words, value])
    assert (done.exit_code, "Invalid value" in done.output, words[-1] in done.output) == (2, True, True), done.output


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["run", "--seeds"], "99999999999"),
        (["gate", "--seeds"], "99999999999"),
        (["calibrate", "--seeds"], "99999999999"),
        (["calibrate", "--trial-seed"], "-1"),
        (["plan", "--tasks"], "99999999999999999999"),
        (["plan", "--run-sd"], "1e300"),
        (["serve", "tiny-aem", "--port"], "-1"),
        (["serve", "tiny-aem", "--port"], "99999999"),
        (["determinism", "--prompts"], "99999999999"),
    ],
    ids=str,
)
def test_a_number_that_no_machine_takes_is_refused(words, value):
    done = CliRunner().invoke(app, [*words, value])
    assert (done.exit_code, "Invalid value" in done.output, words[-1] in done.output) == (2, True, True), done.output


def test_a_setting_of_a_file_that_is_no_finite_number_is_named_also_in_a_list_that_holds_itself(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("arm: a\nsampling: {stop: &s [*s, {bias: .inf}]}\n")
    with pytest.raises(ConfigError, match=r"run.yaml: sampling.stop.1.bias is no finite number"):
        RunConfig.load(path)


@pytest.mark.parametrize("text", ["- a list", "a: [unclosed", ""])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        RunConfig.load(path)


@pytest.mark.parametrize("value", ["[1", "'x", "{a", "\x00"])
def test_an_override_whose_value_is_no_yaml_is_refused_in_one_line(value: str) -> None:
    """It was an unexpected error over several lines, with the exit code of infrastructure."""
    with pytest.raises(ConfigError, match="not valid YAML") as refused:
        RunConfig.load(overrides=[f"outage_seconds={value}"])
    assert "\n" not in str(refused.value)
