"""Generated tasks in real containers: official verdict and every observation agree with the training environment."""

import re
import subprocess
from pathlib import Path
from random import Random

import pytest

from aem_harness.agents.templates import Prompts
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.instances.load import load_tasks
from aem_harness.harness.types import Completion, Outcome, Prediction
from aem_harness.training.checkpoint import load_policy
from aem_harness.training.environment import Skill, demonstration
from aem_harness.training.export import commit_of, export_rows, project_files
from aem_harness.training.model import Cache, continue_rows
from aem_harness.training.rollouts import EpisodeLimits, play
from aem_harness.training.tasks import tasks
from aem_harness.training.tokenizer import Chat
from tests.training.replies import Replies, Silent

PROMPTS = Prompts.load("tiny-1")


@pytest.fixture(scope="module")
def bugs():
    return list(tasks("test", seed=1, count=12))


@pytest.fixture(scope="module")
def exported(bugs, tmp_path_factory):
    """The instances as `aem run --set` reads them."""
    return load_tasks(export_rows(bugs, tmp_path_factory.mktemp("export")))


def test_rows_are_valid_instances_of_one_project(bugs, exported):
    assert [task.instance_id for task in exported] == [f"aem__tiny-bugs-{bug.name}" for bug in bugs]
    assert len({task.instance.image for task in exported}) == len({task.instance.base_commit for task in exported}) == 1
    for bug, task in zip(bugs, exported, strict=True):
        assert task.fail_to_pass
        assert len(task.fail_to_pass) + len(task.pass_to_pass) == len(bug.visible) + len(bug.hidden)
        assert bug.hidden[0] not in task.instance.problem_statement


def test_the_base_commit_is_the_same_on_every_machine(bugs):
    assert commit_of(project_files(bugs)) == commit_of(project_files(bugs))
    assert commit_of(project_files(bugs)) != commit_of(project_files(bugs[:-1]))


def test_gold_and_test_patches_apply_with_git(bugs, exported, tmp_path):
    for path, text in project_files(bugs).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    for task in exported:
        for patch in (task.patch, task.test_patch):
            subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
    for bug in bugs:
        done = subprocess.run(["python3", "t.py", "-v", bug.name], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_two_tasks_of_one_name_are_refused(bugs, tmp_path):
    with pytest.raises(ConfigError, match="distinct names"):
        export_rows([bugs[0], bugs[0]], tmp_path)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_episodes_replayed_in_containers_give_the_same_observations_patches_and_verdicts(
    bugs, exported, tmp_path: Path
):
    """Scripted episodes, good and bad, through the real agent in the real image, graded by the official grader."""
    from aem_harness.agents.bash import BashAgent, BashOptions
    from aem_harness.harness.grading.official import grade
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    verdicts = []
    for number in (3, 4, 5):  # two that end well and one that does not
        bug, task = bugs[number], exported[number]
        episode = demonstration(bug, Skill(right=0.5, tests=0.8), Random(number), PROMPTS)
        policy = Replies(message["content"] for message in episode.messages if message["role"] == "assistant")
        image = ensure_image(task)
        with Sandbox(image.name) as sandbox:
            agent = BashAgent(policy, BashOptions(prompts="tiny-1"))
            agent.run(task.instance, sandbox, Silent(), seed=0)
            patch = sandbox.diff()
        assert policy.heard == list(episode.messages[:-1])
        changes = [re.sub(r"^(@@ .* @@).*", r"\1", line) for line in patch.splitlines() if line[:6] != "index "]
        assert changes == episode.environment.diff().splitlines()
        prediction = Prediction(instance_id=task.instance_id, model_name_or_path="scripted", model_patch=patch)
        folder = tmp_path / str(number)
        folder.mkdir()
        verdict = grade(task, prediction, folder=folder)
        assert verdict.outcome in (Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.EMPTY_PATCH), verdict.cause
        assert verdict.resolved == bool(episode.reward)
        verdicts.append(verdict.resolved)
    assert True in verdicts
    assert False in verdicts


class LocalPolicy:
    """The shipped policy as a server would run it: the whole conversation through the chat template, greedily."""

    def __init__(self, folder: Path):
        self.model, self.tokenizer = load_policy(folder)
        self.chat = Chat(self.tokenizer)

    def complete(self, messages, *, tools=(), seed=None):
        ids = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_dict=False
        )
        room = min(EpisodeLimits().reply, self.model.config.max_position_embeddings - len(ids))
        cache = Cache(self.model.config, 1)
        (reply,) = continue_rows(self.model, cache, [ids], end=self.chat.end, room_B=[room], temperature=0.0)
        return Completion(content=self.chat.reply(reply))

    def describe(self):
        return {}


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.usefixtures("engine")
def test_the_shipped_policy_gets_the_same_verdicts_in_containers_as_in_memory(bugs, exported, tmp_path: Path):
    from aem_harness.agents.bash import BashAgent, BashOptions
    from aem_harness.harness.grading.official import grade
    from aem_harness.harness.sandbox.container import Sandbox
    from aem_harness.harness.sandbox.images import ensure_image

    folder = Path(__file__).parents[2] / "aem_checkpoints" / "tiny-aem"
    policy = LocalPolicy(folder)
    limits = EpisodeLimits(context=policy.model.config.max_position_embeddings)
    in_memory = play(policy.model, policy.chat, bugs[1:4], PROMPTS, limits=limits, temperature=0.0)
    agent = BashAgent(policy, BashOptions(prompts="tiny-1", steps=limits.steps, format_errors=1))
    for number, (rollout, task) in enumerate(zip(in_memory, exported[1:4], strict=True)):
        with Sandbox(ensure_image(task).name) as sandbox:
            agent.run(task.instance, sandbox, Silent(), seed=0)
            prediction = Prediction(
                instance_id=task.instance_id, model_name_or_path="tiny-aem", model_patch=sandbox.diff()
            )
        (tmp_path / str(number)).mkdir()
        verdict = grade(task, prediction, folder=tmp_path / str(number))
        assert verdict.resolved == bool(rollout.episode.reward), task.instance_id
    assert {bool(rollout.episode.reward) for rollout in in_memory} == {True, False}
