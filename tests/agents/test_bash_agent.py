"""The bash agent in a real work tree, driven by scripted replies and by a real HTTP server."""

import gc
import json
import re
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_harness.agents.bash import SENTINEL, BashAgent, BashOptions, fenced
from aem_harness.agents.policy import EndpointPolicy, Retry
from aem_harness.agents.templates import Prompts, shipped_names
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.types import Completion, ExitStatus
from tests.agents.model_server import chat, model_server, say
from tests.agents.workplace import LocalEnvironment, Transcript, instance

QUICK = Retry(attempts=2, first=0.001, cap=0.002, seconds=5)
DONE = f"```bash\necho {SENTINEL}\n```"


def act(command):
    return f"On with it.\n\n```bash\n{command}\n```"


class Scripted:
    """Says its lines; each counts 10 prompt tokens a message and `tokens` completion tokens."""

    def __init__(self, *lines, tokens=5):
        self._lines = list(lines)
        self._tokens = tokens

    def complete(self, messages, *, tools=(), seed=None):
        said = sum(message["role"] == "assistant" for message in messages)
        return Completion(
            content=self._lines[min(said, len(self._lines) - 1)],
            prompt_tokens=10 * len(messages),
            completion_tokens=self._tokens,
            finish_reason="stop",
            seconds=0.5,
        )

    def describe(self):
        return {"kind": "scripted"}


@pytest.fixture
def repository(tmp_path):
    return LocalEnvironment.repository(tmp_path / "repo")


def rollout(repository, policy, **options):
    transcript = Transcript()
    end = BashAgent(policy, BashOptions(**options)).run(instance(repository.workdir), repository, transcript, seed=0)
    return end, transcript.messages


def test_handing_in_takes_the_work_trees_diff(repository):
    end, messages = rollout(repository, Scripted(act("sed -i 's/a - b/a + b/' calc.py"), DONE))
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, None)
    assert "+    return a + b" in repository.diff()
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "exit"]
    assert messages[-1]["extra"]["exit_status"] == "Submitted"


def test_an_observation_keeps_what_the_command_gave_back(repository):
    _, messages = rollout(repository, Scripted(act("echo out; echo err >&2; exit 3"), DONE))
    extra = messages[3]["extra"]
    assert (extra["raw_output"], extra["returncode"], extra["exception_info"]) == ("out\nerr\n", 3, "")
    assert extra["tool_seconds"] > 0
    assert messages[3]["content"] == "<returncode>3</returncode>\n<output>\nout\nerr\n</output>"


def test_every_response_is_recorded_with_its_facts(repository):
    _, messages = rollout(repository, Scripted(act("true"), DONE))
    extra = messages[2]["extra"]
    assert extra["actions"] == [{"command": "true"}]
    assert (extra["prompt_tokens"], extra["completion_tokens"], extra["model_seconds"]) == (20, 5, 0.5)
    assert extra["response"]["usage"]["total_tokens"] == 25
    assert extra["malformed"] is False
    assert (extra["mean_entropy"], extra["surprisal"]) == (None, None)
    json.dumps(messages)


@pytest.mark.parametrize("prompts", ["bash-1", "bash-tool-1"])
def test_messages_have_the_keys_of_real_mini_swe_agent_trajectories(repository, shared, prompts):
    """Every key that two public runs (2.2.4 and 2.2.7, format 1.1) have in all messages of a kind."""

    def kind(message):
        return "observation" if "raw_output" in message.get("extra", {}) else message["role"]

    def keys(messages):
        found = {}
        for message in messages:
            own = set(message) | {f"extra.{key}" for key in message.get("extra", {})}
            found[kind(message)] = found.get(kind(message), own) & own
        return found

    files = sorted((shared / "data" / "trajectories").glob("*mini-swe-agent-2*.traj.json"))
    documents = [json.loads(file.read_text()) for file in files]
    assert {document["trajectory_format"] for document in documents} == {"mini-swe-agent-1.1"}
    real = keys([message for document in documents for message in document["messages"]])
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    done = {**call, "function": {"name": "bash", "arguments": json.dumps({"command": f"echo {SENTINEL}"})}}
    turns = [{"role": "assistant", "content": act("ls"), "tool_calls": [call]}]
    turns += [{"role": "assistant", "content": DONE, "tool_calls": [done]}]
    with model_server(say(*turns)) as server, EndpointPolicy("tiny", [server.url]) as policy:
        _, messages = rollout(repository, policy, prompts=prompts)
    ours = keys(messages)
    # Left out of ours: fields that hold nothing, and the id of a tool call where there are no tool calls.
    spared = {"function_call", "provider_specific_fields"} | ({"tool_call_id"} if prompts == "bash-1" else set())
    assert set(ours) == set(real)
    for role, needed in real.items():
        assert needed - spared <= ours[role], role


@pytest.mark.parametrize(
    ("options", "status", "replies"),
    [
        ({"steps": 3}, ExitStatus.STEP_LIMIT, 3),
        ({"tokens": 12}, ExitStatus.TOKEN_LIMIT, 3),
        ({"context": 60}, ExitStatus.CONTEXT_LIMIT, 3),  # 10 a message: 20, 40, 60
        ({"wall_seconds": 0.3}, ExitStatus.WALL_LIMIT, None),
    ],
)
def test_a_limit_ends_the_rollout_and_leaves_the_work_tree(repository, options, status, replies):
    end, messages = rollout(repository, Scripted(act("echo x >> calc.py; sleep 0.05")), **options)
    assert (end.status, end.patch) == (status, None)
    assert "+x" in repository.diff()
    assert messages[-1]["role"] == "exit"
    if replies:
        assert sum(message["role"] == "assistant" for message in messages) == replies


def test_three_malformed_replies_in_a_row_end_the_rollout(repository):
    end, messages = rollout(repository, Scripted("I think it is fine."))
    assert end.status is ExitStatus.FORMAT_ERRORS
    refusals = [message for message in messages if message.get("extra", {}).get("malformed")]
    assert [message["extra"]["model_response"] for message in refusals] == ["I think it is fine."] * 3
    assert all(message["extra"]["completion_tokens"] == 5 for message in refusals)


@pytest.mark.timeout(120, func_only=True)
def test_a_command_past_its_time_is_killed_and_the_model_is_told(repository):
    end, messages = rollout(repository, Scripted(act("echo begun; sleep 600"), DONE), command_seconds=2)
    assert "timed out after 2 seconds" in messages[3]["content"]
    assert messages[3]["extra"]["raw_output"] == "begun\n"
    assert end.status is ExitStatus.SUBMITTED


def test_the_prompts_digest_moves_with_their_wording_and_not_with_their_name():
    prompts = Prompts.load("bash-1")
    assert prompts.model_copy(update={"name": "x"}).digest == prompts.digest
    assert prompts.model_copy(update={"system": "x"}).digest != prompts.digest


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_prompt_file_names_itself_and_renders(name):
    prompts = Prompts.load(name)
    assert f"{prompts.name}-{prompts.version}" == name
    if name.startswith("bash"):
        assert SENTINEL in prompts.instance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation": "{{ outptu }}"}, "template `observation`: 'outptu' is undefined"),
        ({"system": "{% if %}"}, "template `system`"),
        ({"instance": None}, "instance: "),
        ({"sytem": "x"}, "sytem: "),
    ],
)
def test_broken_prompts_are_found_before_the_run(tmp_path, change, message):
    import yaml

    values = Prompts.load("bash-1").model_dump(mode="json") | change
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=message) as caught:
        Prompts.load(str(path))
    assert str(path) in str(caught.value)


def test_unknown_prompts_name_the_choices():
    with pytest.raises(ConfigError, match=r"bash-1, .*mini-swe-agent"):
        Prompts.load("nope")


# --- reading fences -------------------------------------------------------------------------------------------------

FRAGMENTS = st.lists(
    st.sampled_from(["```bash", "```", "\n", " ", "\t", "x", "```sh", "`", "\n```", "\r"]), max_size=14
)


@settings(max_examples=400)
@given(FRAGMENTS.map("".join))
def test_fences_are_read_as_mini_swe_agents_expression_reads_them(text):
    expected = [found.strip() for found in re.findall(r"```bash\s*\n(.*?)\n```", text, re.DOTALL)]
    assert fenced(text, "bash") == expected


@pytest.mark.parametrize(
    ("reply", "found"),
    [  # what the expression itself finds in the same pattern, repeated less often
        ("```bash\n" * 130_000, ["```bash"] * 43_333),
        ("```bash" + "\n" * 2**20, []),
        ("```bash\n```" * 100_000, ["``````bash"] * 50_000),
        ("x" * 2**20, []),
        ("```bash \n\n" * 100_000, ["```bash"] * 33_333),
    ],
    ids=["unclosed fences", "blank lines", "closed at once", "one line", "blank and unclosed"],
)
@pytest.mark.timeout(120, func_only=True)  # the expression itself takes hours
def test_a_megabyte_of_repetition_is_read_at_once(reply, found):
    assert fenced(reply, "bash") == found


# --- against a server -----------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": ("", {}),
    "nothing": (None, {}),
    "binary": ("\x00\x01\x02\ud800\uffff" * 50, {}),
    "a megabyte on one line": ("y" * 2**20, {}),
    "endless repetition": ("```bash\n" * 60_000, {"finish_reason": "length"}),
    "wrong role": ({"role": "user", "content": "hello"}, {}),
    "content is a number": ({"role": "assistant", "content": 5}, {}),
    "a call of no tool": ({"role": "assistant", "content": None, "tool_calls": [{"function": None}]}, {}),
    "half a call": (
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "bash", "arguments": '{"comm'}}]},
        {},
    ),
}


@pytest.mark.parametrize("prompts", ["bash-1", "bash-tool-1"])
@pytest.mark.parametrize(("message", "more"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_from_the_model_is_a_format_error_and_nothing_else(repository, message, more, prompts):
    message = message if isinstance(message, dict) else {"role": "assistant", "content": message}
    with model_server(lambda handler, request: handler.send_json(chat(message, **more))) as server:
        with EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
            end, messages = rollout(repository, policy, prompts=prompts)
    assert end.status is ExitStatus.FORMAT_ERRORS
    assert sum(bool(message.get("extra", {}).get("malformed")) for message in messages) == 3
    json.dumps(messages).encode()


@pytest.mark.parametrize(
    "command", ["\x00", "echo \ud800", "'", "$(", "cat <<EOF", "kill -9 $$", "exec 1>&-", "\x1b[2J", "é" * 9999]
)
def test_any_command_is_an_observation(repository, command):
    message = {"role": "assistant", "content": act(command)}
    with model_server(say(message, message, {"role": "assistant", "content": DONE})) as server:
        with EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
            end, messages = rollout(repository, policy)
    assert end.status is ExitStatus.SUBMITTED
    assert messages[3]["extra"]["returncode"] is not None


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(["garbage", "500", "429", "reset", "half", "good"])
        | st.text(max_size=30).map(lambda text: f"say {text}"),
        min_size=1,
        max_size=8,
    )
)
def test_a_misbehaving_server_never_causes_the_wrong_kind_of_failure(repository, script):
    """Whatever mixture a server serves: two faults in a row are a fault, three malformed replies in a row a format
    error, and otherwise the rollout ends by handing in. A connection that ends before its second reply is no fault."""
    moves = iter(script)

    def answer(handler, request):
        match next(moves, "done"):
            case "500" | "429" as status:
                handler.send_json({"error": {"message": "busy"}}, int(status))
            case "reset":
                handler.reset()
            case "half":
                handler.send_bytes(b'{"choices": [', length=999)
            case "garbage":
                handler.send_json(chat(None) | {"choices": [{"message": {"content": [None]}}]})
            case "good":
                handler.send_json(chat(act("true")))
            case "done":
                handler.send_json(chat(DONE))
            case words:
                handler.send_json(chat(words))

    faults = {"500", "429", "reset", "half"}
    with model_server(answer) as server, EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
        try:
            ended = rollout(repository, policy)[0].status
        except PolicyFault:
            ended = ExitStatus.FAULT
    expected = ExitStatus.SUBMITTED
    malformed = in_a_row = 0
    used = False  # the connection that this call goes over has brought a whole reply before
    for move in script:
        closed_while_idle, used = used and move == "reset", move not in ("reset", "half")
        if closed_while_idle:
            continue
        in_a_row = in_a_row + 1 if move in faults else 0
        if in_a_row == QUICK.attempts:
            expected = ExitStatus.FAULT
            break
        if move not in faults:
            malformed = 0 if move == "good" else malformed + 1
            if malformed == 3:
                expected = ExitStatus.FORMAT_ERRORS
                break
    assert ended is expected


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_sixty_four_rollouts_at_once_leave_no_thread_and_no_socket(tmp_path):
    """And hold little: the conversation itself, not what is recorded beside it."""

    class ToDisk(Transcript):
        def message(self, message):
            self.messages.append(message["role"])

    steps, reply = 6, act("seq 1 2000")
    repositories = [LocalEnvironment.repository(tmp_path / str(number)) for number in range(64)]
    with model_server(say(reply)) as server:
        agent_threads, sockets = threading.active_count(), open_files()
        tracemalloc.start()
        with EndpointPolicy("tiny", [server.url], retry=Retry(seconds=120)) as policy:
            agent = BashAgent(policy, BashOptions(steps=steps))
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]

            def one(number):
                task = instance(repositories[number].workdir, f"demo__calc-{number}")
                return agent.run(task, repositories[number], ToDisk(), seed=0)

            with ThreadPoolExecutor(64) as pool:
                ends = list(pool.map(one, range(64)))
            peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert {end.status for end in ends} == {ExitStatus.STEP_LIMIT}
        assert len(server.requests) == 64 * steps
        server.requests.clear()
        gc.collect()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and (threading.active_count() > agent_threads or open_files() > sockets):
            time.sleep(0.05)  # the server's side of each connection ends when it notices
        assert threading.active_count() <= agent_threads
        assert open_files() <= sockets
    print(f"peak of 64 rollouts of {steps} steps: {peak / 64 / 1024:.0f} KiB each, the test's server included")
    assert peak / 64 < 2 * 2**20
