"""With mini-swe-agent's prompts, the bash agent holds the same conversation as mini-swe-agent 2.4.6, byte for byte.

The real package runs in a virtual environment of its own (made on first use, outside the repository); only its call
of the network is replaced, by the same scripted replies that our agent gets.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aem_harness.agents.bash import BashAgent, BashOptions
from aem_harness.agents.templates import MINI_SWE_AGENT, Prompts
from aem_harness.harness.types import Completion
from tests.agents.workplace import LocalEnvironment, Transcript, instance
from tests.peers import packages, peer

VERSION = "2.4.6"
DRIVER = Path(__file__).with_name("mini_driver.py")
pytestmark = [pytest.mark.extended, pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="session")
def mini_python() -> Path:
    """The interpreter of a virtual environment that holds mini-swe-agent; skips where it cannot be installed."""
    return peer(f"mini-swe-agent=={VERSION}")


@pytest.fixture
def prompts(mini_python, monkeypatch):
    """Loads mini-swe-agent's prompts as an installation beside us would offer them."""
    monkeypatch.syspath_prepend(str(packages(mini_python)))
    return Prompts.load


class Scripted:
    def __init__(self, replies):
        self._replies = iter(replies)

    def complete(self, messages, *, tools=(), seed=None):
        message, finish_reason = next(self._replies)
        return Completion(
            content=message.get("content") or "",
            tool_calls=tuple(message.get("tool_calls") or ()),
            finish_reason=finish_reason,
            reasoning=message.get("reasoning_content") or "",
            reasoning_field="reasoning_content" if "reasoning_content" in message else "",
        )

    def describe(self):
        return {}


def theirs(python, job):
    env = {
        **os.environ,
        "MSWEA_SILENT_STARTUP": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MSWEA_GLOBAL_CONFIG_DIR": str(python.parents[1] / "config"),
    }
    done = subprocess.run(
        [str(python), str(DRIVER)], input=json.dumps(job), capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def seen_by_the_model(messages):
    """What of the messages reaches the model or ends the run. Fields without a value are left out: whether a client
    says `"function_call": null` or nothing makes no difference to a chat template."""
    kept = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id")
    conversation = []
    for message in messages:
        shown = {key: message[key] for key in kept if message.get(key) is not None}
        if message["role"] == "exit":
            shown |= {key: message["extra"][key] for key in ("exit_status", "submission")}
        conversation.append(shown)
    return conversation


def text(command, *, finish="stop", thought="THOUGHT: on with it."):
    return [{"role": "assistant", "content": f"{thought}\n\n```mswea_bash_command\n{command}\n```"}, finish]


def thoughtful(reply, thought="First I look."):
    """The reply with a thought that the server's reasoning parser took out of it."""
    return [reply[0] | {"reasoning_content": thought}, reply[1]]


def prose(content, finish="stop"):
    return [{"role": "assistant", "content": content}, finish]


def calls(*arguments, names=None, finish="tool_calls", content="On with it."):
    listed = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": (names or {}).get(number, "bash"),
                "arguments": each if isinstance(each, str) else json.dumps(each),
            },
        }
        for number, each in enumerate(arguments)
    ]
    return [{"role": "assistant", "content": content, "tool_calls": listed}, finish]


COMMANDS = [
    "cat calc.py",
    "ls /nonexistent; echo still here",
    "no_such_program --flag",
    "seq 1 5000",
    "printf 'a\\r\\nb\\rc\\377\\n'; printf 'grüße \\342\\200\\250 end'",
    "head -c 9999 /dev/zero | tr '\\0' x",
    "head -c 10000 /dev/zero | tr '\\0' x",
    "echo $PAGER $TQDM_DISABLE; export LOST=1; cd /; pwd",
    'echo "[$LOST]"; pwd',
    "echo started; sleep 30",
    "if then",
    "cat <<'EOF' > new.py\nprint('x')\nEOF\npython3 new.py; rm new.py",
    "",
    "exit 3",
    "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && false",
    "echo not first; echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
    "sed -i 's/a - b/a + b/' calc.py && git diff -- calc.py > patch.txt",
    "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt",
]

TEXT = {
    "a whole rollout": [text(command) for command in COMMANDS],
    "malformed replies in between": [
        prose("I will look around."),
        text("pwd"),
        prose(text("one")[0]["content"] + text("two")[0]["content"]),
        prose("cut off ```mswea_bash_command\nls", "length"),
        text("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
    ],
    "malformed to the end": [prose(""), prose("```bash\nls\n```"), prose("```mswea_bash_command\n```")],
    "thoughts of their own": [
        thoughtful(text("pwd")),
        thoughtful(prose("I will look around.")),
        text("ls"),
        thoughtful(text("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")),
    ],
    "handing in nothing": [text("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")],
    "sentinel after blank lines": [text("printf '\\n \\nCOMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT  \\r\\nx\\r\\ny'")],
}
TOOL = {
    "a whole rollout": [calls({"command": command}) for command in COMMANDS],
    "several calls in one reply": [
        calls({"command": "echo one"}, {"command": "echo two; false"}),
        calls({"command": "echo lost"}, {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo patch"}),
    ],
    "malformed calls": [
        calls('{"command": "ls"'),
        calls({"command": "ls"}, {"command": "ls"}, names={1: "python"}),
        calls({"command": "pwd"}),
        calls({"cmd": "ls"}),
        calls("[1, 2]"),
        calls({"command": "a\0b"}),
        prose("Done, I think."),
        prose("Cut off in the mid", "length"),
        calls({"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}),
    ],
    "thoughts of their own": [
        thoughtful(calls({"command": "pwd"}, content=None)),
        thoughtful(calls({"cmd": "ls"})),
        calls({"command": "ls"}),
        thoughtful(calls({"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"})),
    ],
    "malformed to the end": [prose("no"), calls("null"), calls({"command": "ls"}, names={0: "edit"})],
}
LIMIT = {"a step limit": [text("echo x")] * 9}, {"a step limit": [calls({"command": "echo x"})] * 9}


def cases():
    for name, groups in {"mini-swe-agent-backticks": (TEXT, LIMIT[0]), "mini-swe-agent": (TOOL, LIMIT[1])}.items():
        for what, replies in {**groups[0], **groups[1]}.items():
            yield pytest.param(name, replies, 3 if what == "a step limit" else 250, id=f"{name}: {what}")


CASES = list(cases())


@pytest.fixture(scope="session")
def conversations(mini_python, tmp_path_factory):
    """Each case run by the real mini-swe-agent: by its id, the work tree's path and the messages."""
    jobs = []
    for case in CASES:
        name, replies, steps = case.values
        workdir = tmp_path_factory.mktemp("theirs") / "testbed"
        LocalEnvironment.repository(workdir)
        jobs.append(
            {
                "file": MINI_SWE_AGENT[name][0],
                "workdir": str(workdir),
                "timeout": 2,
                "task": instance(workdir).problem_statement,
                "steps": steps,
                "replies": replies,
                "image": None,
            }
        )
    held = theirs(mini_python, jobs)
    return {case.id: (Path(job["workdir"]), messages) for case, job, messages in zip(CASES, jobs, held, strict=True)}


@pytest.mark.parametrize(("name", "replies", "steps"), CASES)
def test_the_conversation_is_the_same(name, replies, steps, conversations, prompts, request):
    workdir, expected = conversations[request.node.callspec.id]
    loaded = prompts(name)
    assert loaded.version == VERSION
    # /root/.bashrc belongs to the container; on this machine neither side sources it.
    loaded = loaded.model_copy(update={"env": {key: v for key, v in loaded.env.items() if key != "BASH_ENV"}})
    shutil.rmtree(workdir)
    transcript = Transcript()
    agent = BashAgent(Scripted(replies), BashOptions(command_seconds=2, steps=steps), prompts=loaded)
    agent.run(instance(workdir), LocalEnvironment.repository(workdir), transcript, seed=0)
    assert seen_by_the_model(transcript.messages) == seen_by_the_model(expected)


# A container adds its own environment, output beyond what our sandbox keeps, and arguments that are no text.
IN_CONTAINER = [
    # `docker exec` carries stdout and stderr apart, so mini-swe-agent sees them in either order; we, as written.
    *(command for command in COMMANDS[:-2] if "sleep" not in command and "nonexistent" not in command),
    "{ ls /nonexistent; echo still here; } 2>&1",
    "which python; echo $BASH_ENV $CONDA_DEFAULT_ENV; conda activate testbed && echo activated",
    "seq 1 200000",
    "cat",
    5,
    *COMMANDS[-2:],
]


@pytest.mark.docker
@pytest.mark.parametrize("name", MINI_SWE_AGENT)
def test_the_conversation_is_the_same_in_a_container(name, mini_python, prompts, testbed):
    """Left out: a command past its timeout, of which mini-swe-agent quotes its own `docker exec` with the container's
    id. There our message is that of its local environment, compared above."""
    from aem_harness.harness.sandbox.container import Sandbox

    if "backticks" in name:
        # Its configuration runs commands outside the environment `testbed` (no BASH_ENV); ours never does.
        replies = [text(command) for command in IN_CONTAINER if "which python" not in str(command)]
    else:
        replies = [calls({"command": command}) for command in IN_CONTAINER]
    task = instance(Path("/testbed"))
    job = {
        "file": MINI_SWE_AGENT[name][0],
        "workdir": "/testbed",
        "timeout": 60,
        "task": task.problem_statement,
        "steps": 250,
        "replies": replies,
        "image": testbed,
    }
    (expected,) = theirs(mini_python, [job])
    transcript = Transcript()
    with Sandbox(testbed, labels={"aem.test": "agents"}) as sandbox:
        BashAgent(Scripted(replies), prompts=prompts(name)).run(task, sandbox, transcript, seed=0)
    assert seen_by_the_model(transcript.messages) == seen_by_the_model(expected)
