"""The deepswe scaffold: its call format, its tools in a real work tree, its loop."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.agents.deepswe import DeepsweAgent, DeepsweOptions, DeepswePrompts, before_call, parse, thinking
from aem_harness.agents.deepswe_tools import CLIPPED, Tools
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import Completion, ExitStatus
from tests.agents.workplace import LocalEnvironment, Transcript, instance


def call(name, **parameters):
    body = "".join(f"<parameter={key}>{value}</parameter>\n" for key, value in parameters.items())
    return f"<think>Hm.</think>\nNow then.\n\n<function={name}>\n{body}</function>"


FINISH = call("finish", command="submit")


class Scripted:
    def __init__(self, *replies, tokens=100):
        self.replies, self.seen, self._tokens = list(replies), [], tokens

    def complete(self, messages, *, tools=(), seed=None):
        self.seen.append([dict(message) for message in messages])
        reply = self.replies[min(len(self.seen), len(self.replies)) - 1]
        return Completion(content=reply, prompt_tokens=self._tokens * len(self.seen), completion_tokens=1)

    def describe(self):
        return {"kind": "scripted"}


@pytest.fixture
def repository(tmp_path):
    return LocalEnvironment.repository(tmp_path / "testbed")


@pytest.fixture
def tools(repository):
    return Tools(repository, str(repository.workdir), seconds=20)


def rollout(repository, policy, **options):
    transcript = Transcript()
    end = DeepsweAgent(policy, DeepsweOptions(**options)).run(
        instance(repository.workdir), repository, transcript, seed=0
    )
    return end, transcript.messages


# --- calls ----------------------------------------------------------------------------------------------------------


def test_a_call_is_read_from_the_text():
    reply = (
        "I look.\n<function=file_editor>\n  <parameter=command>view</parameter>\n"
        "<parameter=path>\n/testbed/a.py\n</parameter>\n</function> and more <function=finish></function>"
    )
    found = parse(reply)
    assert found == ("file_editor", {"command": "view", "path": "/testbed/a.py"})
    assert found.xml == (
        "<function=file_editor>\n  <parameter=command>view</parameter>\n"
        "  <parameter=path>/testbed/a.py</parameter>\n</function>"
    )


PIECES = st.sampled_from(
    [
        "<function=",
        "search>",
        "<parameter=",
        "path>",
        "</parameter>",
        "</function>",
        "<think>",
        "</think>",
        "x",
        "\n",
        ">",
    ]
)


@given(st.lists(PIECES, max_size=16).map("".join))
def test_calls_are_read_as_r2e_gyms_expressions_read_them(reply):
    import re

    block = re.search(r"(?s)(<function=.*?</function>)", reply)
    action = block.group(1) if block else ""
    name = re.search(r"<function\s*=\s*([^>]+)>", action)
    pairs = re.findall(r"<parameter\s*=\s*([^>]+)>(.*?)</parameter>", action, flags=re.DOTALL)
    expected = {key.strip(): value.strip() for key, value in pairs}
    assert parse(reply) == (name.group(1).strip() if name else "", expected)
    think = re.search(r"(?s)(<think>.*?</think>)", reply)
    assert thinking(reply) == (think.group(1).strip() if think else "")
    assert before_call(reply) == (reply[: block.start()] if block else reply).strip()


@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("piece", ["<function=", "<parameter=a>", "<think>", "<function=a><parameter=", "</function>"])
def test_a_megabyte_of_repetition_is_read_at_once(piece):
    reply = piece * (2**20 // len(piece))
    call = parse(reply + "</function>")
    assert call.parameters == {}  # none of them was closed
    assert before_call(reply) == reply
    assert thinking(reply) == ""


# --- tools ----------------------------------------------------------------------------------------------------------


def edit(tools, command, path, **parameters):
    return tools.call("file_editor", {"command": command, "path": str(path), **parameters}).output


def test_bash_keeps_stdout_and_stderr_apart(tools):
    answer = tools.call("execute_bash", {"cmd": "echo out; echo err >&2"})
    assert (answer.output, answer.code) == ("[STDOUT]\n\nout \n\n[STDERR]\n\nerr\n", "0")


def test_a_failing_command_says_so_with_its_exit_code(tools):
    answer = tools.call("execute_bash", {"command": "echo out; exit 3"})
    assert answer.output.startswith("Error executing command:\n\n[STDOUT]\n\nout \n")
    assert answer.code == "Error: Exit code 3"


def test_a_blocked_command_is_refused(tools):
    assert "'git' is not allowed" in tools.call("execute_bash", {"cmd": "git log"}).output


def test_a_command_past_its_time_says_so(repository):
    tools = Tools(repository, str(repository.workdir), seconds=0.5)
    answer = tools.call("execute_bash", {"cmd": "sleep 60"})
    assert (answer.output, answer.code) == ("The command took too long to execute (>0.5s)", "-1")


def test_search_counts_lines_per_python_file(tools, repository):
    (repository.workdir / "sub").mkdir()
    (repository.workdir / "sub" / "more.py").write_text("return\nreturn\n")
    (repository.workdir / "notes.txt").write_text("return\n")
    (repository.workdir / ".hidden").mkdir()
    (repository.workdir / ".hidden" / "x.py").write_text("return\n")
    lines = tools.call("search", {"search_term": "return"}).output.splitlines()
    assert lines[0] == f'Found 3 matches for "return" in {repository.workdir}:'
    assert sorted(lines[1:-1]) == ["./calc.py (1 matches)", "./sub/more.py (2 matches)"]
    assert lines[-1].startswith("End of matches")


def test_search_in_a_file_shows_lines(tools, repository):
    answer = tools.call("search", {"search_term": "a - b", "path": "calc.py"}).output
    assert answer == f'Matches for "a - b" in {repository.workdir}/calc.py:\n2:    return a - b\n'
    assert "No matches found" in tools.call("search", {"search_term": "zzz", "path": "calc.py"}).output
    assert "not found or not a directory" in tools.call("search", {"search_term": "z", "path": "nowhere"}).output


def test_the_editor_views_creates_replaces_inserts_and_undoes(tools, repository):
    path = repository.workdir / "calc.py"
    assert edit(tools, "view", path) == (
        f"Here's the result of running `cat -n` on the file: {path}:\n     1 def add(a, b):\n     2     return a - b\n"
    )
    shown = edit(tools, "str_replace", path, old_str="a - b", new_str="a + b")
    assert shown == (
        f"The file {path} has been edited. Here's the result of running `cat -n` on a snippet of {path}:\n"
        "     1\tdef add(a, b):\n     2\t    return a + b\n     3\t\n"
        "Review the changes and make sure they are as expected. Edit the file again if necessary.\n"
    )
    edit(tools, "insert", path, insert_line="0", new_str="# calculator")
    assert path.read_text() == "# calculator\ndef add(a, b):\n    return a + b\n"
    edit(tools, "undo_edit", path)
    edit(tools, "undo_edit", path)
    assert path.read_text() == "def add(a, b):\n    return a - b\n"
    assert "No previous edits" in edit(tools, "undo_edit", path)
    new = repository.workdir / "new.py"
    assert edit(tools, "create", new, file_text="x = 1").startswith(f"File created at {new}. Here's the result")
    assert new.read_text() == "x = 1"
    assert "Cannot overwrite" in edit(tools, "create", new, file_text="")


def test_an_edit_keeps_the_files_mode(tools, repository):
    script = repository.workdir / "run.sh"
    script.write_text("echo a\n")
    script.chmod(0o755)
    edit(tools, "str_replace", script, old_str="a\n", new_str="b\n")
    assert script.stat().st_mode & 0o777 == 0o755
    assert script.read_text() == "echo b\n"


def test_a_long_python_file_is_shown_condensed_unless_a_range_is_asked_for(tools, repository):
    path = repository.workdir / "long.py"
    body = "".join(f"    x{number} = {number}\n" for number in range(120))
    path.write_text(f"def f():\n{body}\n\ndef g():\n    return 1\n")
    shown = edit(tools, "view", path)
    assert shown.startswith(f"Here is a condensed view for file: {path}")
    assert "... eliding lines 2-121 ..." in shown
    assert "   125     return 1" in shown
    assert "    50     x48 = 48" in edit(tools, "view", path, view_range="[50, 51]")


def test_long_answers_are_clipped(tools, repository):
    (repository.workdir / "wide.py").write_text("x = '" + "y" * 20_000 + "'\n")
    assert edit(tools, "view", repository.workdir / "wide.py").endswith(f"{CLIPPED}\n")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"command": "view", "path": "/nowhere"}, "does not exist"),
        ({"command": "edit", "path": "calc.py"}, "Unrecognized command 'edit'"),
        ({"command": "str_replace", "path": "calc.py", "old_str": "zzz"}, "No occurrences of 'zzz'"),
        ({"command": "str_replace", "path": "calc.py", "old_str": "a"}, "Multiple occurrences"),
        ({"command": "str_replace", "path": "calc.py"}, "Missing required parameter 'old_str'"),
        ({"command": "insert", "path": "calc.py", "insert_line": "99", "new_str": "x"}, "Must be in [0, 3]"),
        ({"command": "insert", "path": "calc.py", "insert_line": "two", "new_str": "x"}, "is not a number"),
        ({"command": "view", "path": "calc.py", "view_range": "[5, 9]"}, "start line must be in [1, 2]"),
        ({"command": "view", "path": "calc.py", "view_range": "5"}, "is not two numbers"),
        ({"command": "create", "path": "no/such/dir/x.py", "file_text": ""}, "Error creating file at"),
        ({"command": "create", "path": ".", "file_text": ""}, "already exists"),
        ({"command": "str_replace", "path": ".", "old_str": "x"}, "is a directory"),
        ({"command": "view"}, "needs a path"),
        ({"command": "view", "path": "a\0b"}, "null byte"),
    ],
)
def test_a_misused_editor_says_what_is_wrong(tools, parameters, message):
    answer = tools.call("file_editor", parameters).output
    assert "ERROR: " in answer
    assert message in answer


# --- the loop -------------------------------------------------------------------------------------------------------


def test_a_rollout_ends_with_finish_and_the_work_trees_diff(repository):
    policy = Scripted(call("file_editor", command="str_replace", path="calc.py", old_str="-", new_str="+"), FINISH)
    end, messages = rollout(repository, policy)
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, None)
    assert "+    return a + b" in repository.diff()
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "exit",
    ]
    assert messages[2]["extra"]["actions"][0]["tool"] == "file_editor"
    assert messages[3]["content"].startswith("Execution output of [file_editor]:\nThe file calc.py has been edited.")


def test_every_message_to_the_policy_ends_with_the_steps_that_remain(repository):
    policy = Scripted(call("execute_bash", cmd="true"), "No call here.", FINISH)
    rollout(repository, policy, announced_steps=2)
    asked = [messages[-1]["content"].splitlines()[-1] for messages in policy.seen]
    assert asked == [
        "Steps Remaining: 2",
        "Steps Remaining: 1",
        "You have reached the maximum number of steps. Please submit your answer NOW.",
    ]
    assert "YOU MUST USE A FUNCTION CALL" in policy.seen[2][-1]["content"]


def test_the_conversation_keeps_the_thinking_or_the_text(repository):
    for keep, expected in {"think": "<think>Hm.</think>\n\n", "text": "<think>Hm.</think>\nNow then.\n\n"}.items():
        policy = Scripted(call("execute_bash", cmd="true"), FINISH)
        _, messages = rollout(repository, policy, keep=keep)
        said = policy.seen[1][2]["content"]
        assert said == f"{expected}<function=execute_bash>\n  <parameter=cmd>true</parameter>\n</function>"
        raw = messages[2]["extra"]["response"]["choices"][0]["message"]["content"]
        assert raw == call("execute_bash", cmd="true")


@pytest.mark.parametrize("thoughts", ["send", "drop"])
def test_thoughts_that_the_server_took_out_of_a_reply_go_back_in_its_field(repository, thoughts):
    text = call("execute_bash", cmd="true").removeprefix("<think>Hm.</think>")
    policy = Scripted(text, FINISH)
    policy.complete = lambda *asked, ours=policy.complete, **more: ours(*asked, **more).model_copy(
        update={"reasoning": "Hm.", "reasoning_field": "reasoning_content"}
    )
    _, messages = rollout(repository, policy, thoughts=thoughts)
    assert policy.seen[1][2].get("reasoning_content") == ("Hm." if thoughts == "send" else None)
    assert messages[2]["extra"]["reasoning"] == "Hm."


def test_long_command_output_loses_its_middle(repository):
    policy = Scripted(call("execute_bash", cmd="seq 1 500"), FINISH)
    rollout(repository, policy)
    lines = policy.seen[1][-1]["content"].splitlines()
    assert lines[:2] == ["Exit code: 0", "Execution output of [execute_bash]:"]
    assert "<Observation truncated in middle for saving context>" in lines
    assert len(lines) == 2 + 40 + 3 + 40 + 1


@pytest.mark.parametrize(
    ("options", "status"),
    [({"steps": 3}, ExitStatus.STEP_LIMIT), ({"context": 250}, ExitStatus.CONTEXT_LIMIT)],
)
def test_a_limit_ends_the_rollout(repository, options, status):
    end, messages = rollout(repository, Scripted(call("execute_bash", cmd="true")), **options)
    assert end.status is status
    assert sum(message["role"] == "assistant" for message in messages) == 3


GARBAGE = [
    "",
    "\x00",
    "<function=>",
    "<function=rm></function>",
    "<function=file_editor></function>",
    "<function=a" * 9999,
    "x" * 2**20,
    call("execute_bash"),
    call("search"),
    call("file_editor", command="view", path="a\0b"),
]


@pytest.mark.parametrize("reply", GARBAGE)
def test_garbage_from_the_model_never_crashes_a_run(repository, reply):
    end, messages = rollout(repository, Scripted(reply), steps=2)
    assert end.status is ExitStatus.STEP_LIMIT
    assert len(messages) == 7


def test_the_prompts_of_r2e_gym_can_be_used_from_their_file(tmp_path):
    path = tmp_path / "edit_non_fn_calling.yaml"
    path.write_text(yaml.safe_dump({"system_prompt": "S", "instance_prompt": "I {problem_statement}", "llm_name": "x"}))
    prompts = DeepswePrompts.load(str(path))
    assert prompts.instance_prompt.format(problem_statement="p") == "I p"
    assert prompts.describe()["name"] == "edit_non_fn_calling"


@pytest.mark.parametrize("values", [{"system_prompt": "S"}, {"system_prompt": "S", "instance_prompt": "{nonsense}"}])
def test_broken_prompts_are_found_before_the_run(tmp_path, values):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="needs system_prompt and instance_prompt"):
        DeepswePrompts.load(str(path))
    with pytest.raises(ConfigError, match=r"deepswe-1.*edit_non_fn_calling"):
        DeepswePrompts.load("nope")
