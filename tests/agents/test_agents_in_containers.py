"""Every agent in a real container, where it differs from a work tree on this machine."""

from pathlib import Path

import pytest

from aem_harness.agents.bash import SENTINEL, BashAgent, BashOptions
from aem_harness.agents.command import CommandAgent
from aem_harness.agents.deepswe import DeepsweAgent
from aem_harness.agents.deepswe_tools import Tools
from aem_harness.agents.policy import EndpointPolicy
from aem_harness.agents.scripted import GoldAgent
from aem_harness.harness.errors import EnvironmentFault
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.types import ExitStatus
from tests.agents.model_server import model_server, say
from tests.agents.workplace import FIX, Transcript, instance

pytestmark = pytest.mark.docker
DONE = f"```bash\necho {SENTINEL}\n```"


@pytest.fixture
def sandbox(testbed):
    with Sandbox(testbed, labels={"aem.test": "agents"}) as container:
        yield container


@pytest.fixture
def task():
    return instance(Path("/testbed"))


def say_in_turn(*replies):
    return model_server(say(*replies))


def test_gold_in_a_container(sandbox, task):
    end = GoldAgent({task.instance_id: FIX}).run(task, sandbox, Transcript(), seed=0)
    assert end.status is ExitStatus.SUBMITTED
    assert "+    return a + b" in sandbox.diff()
    assert sandbox.execute("ls /tmp").output == ""


def test_bash_in_a_container_works_in_the_testbed_environment(sandbox, task):
    transcript = Transcript()
    look = "```bash\nwhich python; echo $PAGER; pwd; sed -i 's/a - b/a + b/' calc.py\n```"
    with say_in_turn(look, DONE) as server, EndpointPolicy("tiny", [server.url]) as policy:
        end = BashAgent(policy).run(task, sandbox, transcript, seed=0)
    assert end.status is ExitStatus.SUBMITTED
    seen = transcript.messages[3]["extra"]["raw_output"]
    assert seen == "/opt/miniconda3/envs/testbed/bin/python\ncat\n/testbed\n"
    assert "+    return a + b" in sandbox.diff()


def test_deepswe_in_a_container(sandbox, task):
    edit = (
        "<function=file_editor><parameter=command>str_replace</parameter><parameter=path>/testbed/calc.py</parameter>"
        "<parameter=old_str>a - b</parameter><parameter=new_str>a + b</parameter></function>"
    )
    transcript = Transcript()
    with say_in_turn(edit, "<function=finish></function>") as server, EndpointPolicy("tiny", [server.url]) as policy:
        end = DeepsweAgent(policy).run(task, sandbox, transcript, seed=0)
    assert end.status is ExitStatus.SUBMITTED
    assert "+    return a + b" in sandbox.diff()
    assert sandbox.execute("ls -A /tmp | grep aem-edit").output == ""


def test_deepswe_tools_in_a_container(sandbox):
    tools = Tools(sandbox, "/testbed", seconds=20)
    bash = tools.call("execute_bash", {"cmd": "which python; echo err >&2; exit 3"})
    assert bash.code == "Error: Exit code 3"
    assert "/opt/miniconda3/envs/testbed/bin/python" in bash.output
    assert bash.output.endswith("[STDERR]\n\nerr\n")
    assert "./calc.py (1 matches)" in tools.call("search", {"search_term": "return"}).output
    assert "2:    return a - b" in tools.call("search", {"search_term": "return", "path": "calc.py"}).output
    created = tools.call("file_editor", {"command": "create", "path": "/testbed/new.py", "file_text": "x = 'é'\n"})
    assert created.output.startswith("File created at /testbed/new.py. ")
    assert "     1 x = 'é'" in tools.call("file_editor", {"command": "view", "path": "/testbed/new.py"}).output
    assert "/testbed/new.py" in tools.call("file_editor", {"command": "view", "path": "/testbed"}).output
    flood = tools.call("execute_bash", {"cmd": "yes | head -c 5000000; echo last >&2"})
    assert len(flood.output) < 300_000
    assert flood.output.endswith("last\n")


def test_a_program_works_in_the_container_through_docker_exec(sandbox, task):
    script = 'docker exec "$AEM_CONTAINER" sed -i "s/a - b/a + b/" "$AEM_WORKDIR/calc.py"'
    end = CommandAgent(f"bash -c '{script}'").run(task, sandbox, Transcript(), seed=0)
    assert end.status is ExitStatus.SUBMITTED
    assert "+    return a + b" in sandbox.diff()


def test_a_container_that_dies_under_the_agent_is_a_fault_and_no_observation(sandbox, task):
    kill = f"bash -c 'docker kill {sandbox.id} > /dev/null'"
    assert CommandAgent(kill).run(task, sandbox, Transcript(), seed=0).status is ExitStatus.SUBMITTED
    with say_in_turn("```bash\nls\n```") as server, EndpointPolicy("tiny", [server.url]) as policy:
        with pytest.raises(EnvironmentFault):
            BashAgent(policy, BashOptions(steps=3)).run(task, sandbox, Transcript(), seed=0)
        with pytest.raises(EnvironmentFault):
            Tools(sandbox, "/testbed", seconds=5).call("execute_bash", {"cmd": "ls"})
