"""The generated tasks, and the memory shell that stands in for their containers while learning."""

import ast
import re
import subprocess
import sys
from random import Random

import pytest

from aem_harness.agents.templates import Prompts
from aem_harness.harness.types import ExitStatus
from aem_harness.training import functions
from aem_harness.training.environment import Episode, Skill, demonstration, files_of, sed
from aem_harness.training.project.t import failures
from aem_harness.training.shell import SUBMIT, MemoryEnvironment, Unsupported, safe_failures
from aem_harness.training.tasks import mutants, tasks
from tests.training.replies import Replies, Silent

PROMPTS = Prompts.load("tiny-1")


@pytest.fixture(scope="module")
def train_tasks():
    return list(tasks("train", seed=0, count=150))


@pytest.fixture(scope="module")
def held_out():
    return list(tasks("test", seed=1, count=60))


def test_gold_passes_everything_and_the_bug_shows_in_visible_and_hidden_examples(train_tasks):
    for task in train_tasks:
        assert not any(failures(task.gold, [*task.visible, *task.hidden]))
        assert any(failures(task.bug, task.visible))
        assert any(failures(task.bug, task.hidden))
        assert not set(task.visible) & set(task.hidden)


def test_no_test_function_has_the_shape_of_a_training_function(train_tasks, held_out):
    shapes = {functions.skeleton(task.gold) for task in train_tasks}
    assert shapes.isdisjoint(functions.skeleton(task.gold) for task in held_out)


def test_a_skeleton_forgets_names_and_constants_and_nothing_else():
    one = "def f(a, b):\n    if a > 3:  # a > 3\n        return a\n    return b"
    assert functions.skeleton(one) == functions.skeleton(
        one.replace("a", "q").replace("3", "7").replace("def f", "def g")
    )
    assert functions.skeleton(one) != functions.skeleton(one.replace("if a >", "if a >="))


def test_the_same_seed_gives_the_same_tasks_in_another_process():
    program = "from aem_harness.training.tasks import tasks; print(list(tasks('test', seed=5, count=5)))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{list(tasks('test', seed=5, count=5))}\n"}


def test_every_mutant_parses_and_changes_one_line_of_code(train_tasks):
    for task in train_tasks[:40]:
        found = mutants(task.gold)
        assert len(set(found)) == len(found) > 2
        for mutant in found:
            assert ast.parse(mutant)
            assert functions.comments_of(mutant) == functions.comments_of(task.gold)


def test_the_scripted_fix_is_one_sed_command_that_solves_the_task(train_tasks):
    for task in train_tasks:
        environment = MemoryEnvironment(files_of(task))
        environment.execute(sed(task.fix, f"lib/{task.name}.py"))
        assert environment.files[f"lib/{task.name}.py"] == task.gold + "\n"


def test_a_perfect_teacher_solves_every_task_and_a_hopeless_one_next_to_none(train_tasks):
    solved = {}
    for right in (1.0, 0.0):
        episodes = [demonstration(task, Skill(right, tests=1.0), Random(0), PROMPTS) for task in train_tasks]
        assert {episode.status for episode in episodes} == {ExitStatus.SUBMITTED}
        solved[right] = sum(episode.reward for episode in episodes)
    assert solved[1.0] == len(train_tasks)
    assert solved[0.0] < 0.1 * len(train_tasks)  # now and then another change has the same effect


# --- the memory shell against the real one ----------------------------------------------------------------------------


def real(files, commands, folder):
    """The same commands in bash, in a git repository with the same files."""
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        yield done.stdout, done.returncode


def test_the_memory_shell_answers_as_bash_does(train_tasks, tmp_path):
    import inspect

    from aem_harness.training.project import t

    task, other = train_tasks[:2]
    path, missing = f"lib/{task.name}.py", "lib/none_such.py"
    commands = [
        f"cat {path}",
        f"cat {missing}",
        "python t.py none_such",
        f"python t.py {task.name}",
        f"python t.py {other.name}",
        f"sed -i '3s/{missing[:1]}/x/' {missing}",
        f"sed -i '40s/a/b/' {path}",
        f"sed -i '3s/r/q/' {path}",
        f"sed -i '3s/no such text/q/' {path}",
        f"sed -i '1s/(/((/' {path}",
        f"python t.py {task.name}",
        f"git checkout -q {path}",
        f"git checkout -q {missing}",
        f"sed -i '1s/{task.name}/other/' {path}",
        f"python t.py {task.name}",
        f"git checkout -q {path}",
        f"sed -i '3s/ b/ zz/g' {path}",
        f"sed -i '4s/r */r +/' {path}",
        rf"sed -i '5s/ \* / + /' {path}",
        f"sed -i '5s/r.a/r.a/' {path}",
        f"sed -i '4s/*/+/' {path}",
        f"sed -i '5s/+=*/-/' {path}",
        f"cat {path}",
        f"python t.py {task.name}",
        SUBMIT,
    ]
    files = files_of(task) | files_of(other)
    memory = MemoryEnvironment(files)
    runner = {"t.py": inspect.getsource(t)}
    for command, expected in zip(commands, real(files | runner, commands, tmp_path), strict=True):
        seen = memory.execute(command)
        assert (seen.output, seen.returncode) == expected, command
    patch = subprocess.run(["git", "diff"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    # git also names the function a hunk lies in, and the blobs.
    lines = [re.sub(r"^(@@ .* @@).*", r"\1", line) for line in patch.splitlines() if line[:6] != "index "]
    assert memory.diff().splitlines() == lines


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "cat lib/a.py; rm -rf /",
        "cat lib/../../etc/passwd",
        "sed -i '3s/[a]/b/' lib/a.py",
        "sed -i '3s/^a/b/' lib/a.py",
        "sed -i '3s/a/&&/' lib/a.py",
        "sed -i '0s/a/b/' lib/a.py",
        "sed -i '3s/a**/b/' lib/a.py",
        "sed -i '3s/a/b/e' lib/a.py",
        "python t.py -v a",
        "git checkout -q .",
        "echo hello",
    ],
)
def test_what_is_not_emulated_exactly_is_refused(command):
    with pytest.raises(Unsupported):
        MemoryEnvironment({"lib/a.py": "a\nb\nc\n"}).execute(command)


@pytest.mark.parametrize(
    "body",
    [
        "import os",
        "return open('x')",
        "return a.__class__",
        "return (lambda: a)()",
        "return f(a)",
        "for i in range(10 * 9 * 9 * 9):\n        a = a + 1",
        "for i in range(9 * 9):\n        a = a * a",
        "r = [a]\n    for x in r:\n        r.append(x)",
        "while a:\n        a = a",
        "return 9999999999",
    ],
)
def test_code_outside_the_tasks_grammar_or_too_long_is_not_run(body):
    with pytest.raises(Unsupported):
        safe_failures(f"def f(a):\n    {body}\n    return a", ["f(3) == 3"])


def test_broken_code_is_reported_not_refused():
    assert safe_failures("def f(:", ["f(1) == 1"]) == ["SyntaxError"]
    assert safe_failures("def f(a):\n    return b", ["f(1) == 1"]) == ["f(1) gives NameError, want 1"]


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_an_episode_is_the_bash_agents_rollout_message_by_message(train_tasks):
    """The same replies through the real agent on the same environment give the same conversation and patch."""
    from aem_harness.agents.bash import BashAgent, BashOptions
    from aem_harness.harness.types import Instance
    from aem_harness.training.environment import statement_of

    for number, task in enumerate(train_tasks[:30]):
        episode = demonstration(task, Skill(right=0.4), Random(number), PROMPTS)
        policy = Replies(m["content"] for m in episode.messages if m["role"] == "assistant")
        environment = MemoryEnvironment(files_of(task))
        instance = Instance(
            instance_id="x", repo="x", base_commit="0" * 40, problem_statement=statement_of(task), image="x"
        )
        agent = BashAgent(policy, BashOptions(prompts="tiny-1"))
        end = agent.run(instance, environment, Silent(), seed=0)
        assert end.status is episode.status
        assert policy.heard == list(episode.messages[:-1])
        assert environment.diff() == episode.environment.diff()


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("no command", ExitStatus.FORMAT_ERRORS),
        ("```bash\nls\n```\n```bash\nls\n```", ExitStatus.FORMAT_ERRORS),
        ("```bash\nrm -rf /\n```", ExitStatus.AGENT_CRASH),
        (f"```bash\n{SUBMIT}\n```", ExitStatus.SUBMITTED),
    ],
)
def test_ends_of_an_episode(train_tasks, reply, status):
    episode = Episode(train_tasks[0], PROMPTS)
    assert episode.reply(reply) is None
    assert episode.status is status
    assert episode.reward == 0.0


def test_the_step_limit_ends_an_episode_and_the_work_tree_still_counts(train_tasks):
    task = train_tasks[0]
    episode = Episode(task, PROMPTS, max_steps=2)
    assert episode.reply(f"```bash\ncat lib/{task.name}.py\n```") is not None
    assert episode.reply(f"```bash\n{sed(task.fix, f'lib/{task.name}.py')}\n```") is None
    assert episode.status is ExitStatus.STEP_LIMIT
    assert episode.reward == 1.0
