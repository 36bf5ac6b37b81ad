"""From the words of a configuration to agents and policies."""

import json
import sys

import pytest

from aem_harness.agents.build import build, endpoint_policy
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import Agent, AgentExit, ExitStatus
from tests.agents.model_server import model_server, say
from tests.agents.workplace import LocalEnvironment, Transcript, instance


class Own:
    """An agent of a user's own, found by its entry point."""

    name = "own"

    def __init__(self, *, policy, options):
        self.options = options

    def run(self, instance, environment, record, *, seed):
        return AgentExit(status=ExitStatus.SUBMITTED, patch=f"{instance.instance_id} {seed} {self.options}")

    def describe(self):
        return {"kind": "own"}


def test_a_module_of_the_working_folder_is_found_and_shadows_nothing(tmp_path, monkeypatch):
    (tmp_path / "mine_of_the_folder.py").write_text(f"from {__name__} import Own\n\n\nclass agents:\n    Mine = Own\n")
    (tmp_path / "json.py").write_text("raise AssertionError('the standard library comes first')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    assert build("mine_of_the_folder:Own").name == "own"
    assert build("mine_of_the_folder:agents.Mine").name == "own"
    import json

    assert json.loads("1") == 1


def not_an_agent(*, policy, options):
    return object()


def takes_nothing():
    return None


def test_an_agent_of_ones_own_is_an_entry_point(tmp_path):
    agent = build(f"{__name__}:Own", options={"x": 1})
    end = agent.run(instance(tmp_path), LocalEnvironment(tmp_path), Transcript(), seed=4)
    assert end.patch == "demo__calc-1 4 {'x': 1}"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("not_an_agent", "lacks name, run, describe"), ("takes_nothing", "must accept policy="), ("GONE", "cannot be")],
)
def test_an_entry_point_that_makes_no_agent_says_why(attribute, message):
    with pytest.raises(ConfigError, match=message):
        build(f"{__name__}:{attribute}")


def test_what_agents_say_of_themselves_is_json_and_names_no_address():
    with model_server(say("x")) as server, endpoint_policy("", [server.url], {"temperature": 0.5}) as policy:
        for spec in ("bash", "deepswe", "gold", "empty", f"command:{sys.executable} -V"):
            agent: Agent = build(spec, policy=policy)
            described = json.dumps(dict(agent.describe()))
            assert agent.name in described
            assert "127.0.0.1" not in described
        assert json.loads(json.dumps(dict(policy.describe())))["model"] == "tiny"


def test_options_reach_the_agent():
    with model_server(say("x")) as server, endpoint_policy("tiny", [server.url]) as policy:
        agent = build("bash", options={"steps": 7, "prompts": "bash-tool-1"}, policy=policy)
        assert agent.describe()["budget"]["steps"] == 7
        assert agent.describe()["prompts"]["name"] == "bash-tool"
        assert build("deepswe", options={"announced_steps": 40}, policy=policy).describe()["budget"]["steps"] == 100


def test_bad_sampling_is_one_line_that_names_the_field():
    with pytest.raises(ConfigError, match=r"sampling: temprature.*takes temperature, top_p"):
        endpoint_policy("tiny", ["http://127.0.0.1:9"], {"temprature": 1})
    with pytest.raises(ConfigError, match=r"sampling: top_p"):
        endpoint_policy("tiny", ["http://127.0.0.1:9"], {"top_p": 3})


@pytest.mark.parametrize("value", ["inf", "1e999", float("inf")])
def test_a_number_without_end_is_refused_where_it_is_written_as_a_word_too(value):
    """YAML reads `inf` and `1e999` as text. A command that may take so long ended as the agent's own crash."""
    with pytest.raises(ConfigError, match="sampling: temperature"):
        endpoint_policy("tiny", ["http://127.0.0.1:9"], {"temperature": value})
    for agent in ("bash", "deepswe"):
        for name in ("command_seconds", "wall_seconds"):
            with pytest.raises(ConfigError, match=name):
                build(agent, options={name: value}, policy=object())


@pytest.mark.parametrize("agent", ["bash", "deepswe"])
def test_a_command_may_not_take_longer_than_a_socket_waits(agent):
    with pytest.raises(ConfigError, match="command_seconds"):
        build(agent, options={"command_seconds": "1e10"}, policy=object())
