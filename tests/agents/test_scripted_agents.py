"""Gold, empty and replay against a real work tree."""

import json
from pathlib import Path

import pytest

from aem_harness.agents.build import build
from aem_harness.agents.scripted import EmptyAgent, GoldAgent, load_replay, shipped_replays
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.types import ExitStatus
from tests.agents.workplace import FIX, LocalEnvironment, Transcript, instance

REPLAY = """\
instances:
  demo__calc-1:
    - thought: Look at it.
      action: cat calc.py
    - reply: I forgot the command.
    - thought: Mend it.
      action: |
        sed -i 's/a - b/a + b/' calc.py
        git diff
  demo__calc-2:
    seeds:
      default:
        - {thought: Give it a file., action: "echo new > new.txt"}
      1:
        - {thought: Nothing., action: "true"}
"""


@pytest.fixture
def repository(tmp_path: Path) -> LocalEnvironment:
    return LocalEnvironment.repository(tmp_path / "repo")


@pytest.fixture
def replay(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(REPLAY)
    return path


def test_gold_leaves_the_gold_patch_as_the_work_trees_diff(repository):
    end = GoldAgent({"demo__calc-1": FIX}).run(instance(repository.workdir), repository, Transcript(), seed=0)
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, None)
    assert "+    return a + b" in repository.diff()


def test_a_gold_patch_that_does_not_apply_is_an_error_of_the_data(repository):
    with pytest.raises(DataError, match="demo__calc-1 does not apply"):
        GoldAgent({"demo__calc-1": FIX.replace("a - b", "a * b")}).run(
            instance(repository.workdir), repository, Transcript(), seed=0
        )


def test_empty_hands_in_nothing_whatever_the_work_tree_holds(repository):
    repository.execute("echo dirt >> calc.py")
    end = EmptyAgent().run(instance(repository.workdir), repository, Transcript(), seed=0)
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, "")


def test_replay_runs_its_actions_and_records_them_as_the_bash_agent_would(repository, replay):
    transcript = Transcript()
    agent = build(f"replay:{replay}")
    end = agent.run(instance(repository.workdir), repository, transcript, seed=0)
    assert (end.status, end.patch) == (ExitStatus.SUBMITTED, None)
    assert "+    return a + b" in repository.diff()
    roles = [message["role"] for message in transcript.messages]
    assert roles == ["system", "user", "assistant", "user", "user", "assistant", "user", "assistant", "exit"]
    assert transcript.messages[2]["extra"]["actions"] == [{"command": "cat calc.py"}]
    assert transcript.messages[3]["extra"]["raw_output"].startswith("def add")
    assert transcript.messages[4]["extra"]["malformed"] is True
    assert "found 0" in transcript.messages[4]["content"]


def test_a_seed_without_a_script_of_its_own_plays_the_default(tmp_path, replay):
    agent = build(f"replay:{replay}")
    diffs = {}
    for seed in (0, 1, 2):
        repository = LocalEnvironment.repository(tmp_path / f"repo-{seed}")
        agent.run(instance(repository.workdir, "demo__calc-2"), repository, Transcript(), seed=seed)
        diffs[seed] = repository.diff()
    assert "new.txt" in diffs[0]
    assert diffs[1] == ""
    assert diffs[2] == diffs[0]


def test_an_instance_without_a_script_gives_up_at_once_and_says_so(repository, replay):
    end = build(f"replay:{replay}").run(instance(repository.workdir, "other__x-1"), repository, Transcript(), seed=0)
    assert end.status is ExitStatus.SUBMITTED
    assert "no script for other__x-1" in end.reason
    assert repository.diff() == ""


def test_json_lines_hold_the_same_scripts(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(
        '{"instance_id": "a__b-1", "steps": [{"thought": "t", "action": "ls"}]}\n\n'
        '{"instance_id": "a__b-1", "seed": 2, "steps": []}\n'
    )
    scripts = load_replay(str(path))
    assert [step.action for step in scripts["a__b-1", None]] == ["ls"]
    assert scripts["a__b-1", 2] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instances: [1]", "needs a mapping `instances`"),
        ("instances: {a: 3}", "a: needs a list of steps"),
        ("instances: {a: {seed: []}}", "mapping `seeds`"),
        ("instances: {a: {seeds: {first: []}}}", "seed 'first'"),
        ("instances: {a: [{thought: x}]}", "step 1.*`action` or `reply`"),
        ("instances: {a: [{action: x, actoin: y}]}", "step 1: actoin"),
    ],
)
def test_a_broken_replay_names_the_place(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_replay(str(path))


@pytest.mark.parametrize("name", shipped_replays())
def test_every_shipped_replay_is_sound(name):
    scripts = load_replay(name)
    assert all(steps for (_, seed), steps in scripts.items() if seed is None)
    json.dumps(dict(build(f"replay:{name}").describe()))


@pytest.mark.parametrize("spec", ["", "golden", "gold:x", "replay", "replay:", "bash:x", "no.such:thing", "os:nothing"])
def test_an_unknown_agent_is_one_line_that_names_the_choices(spec):
    with pytest.raises(ConfigError, match="replay:NAME_OR_FILE") as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_agents_that_need_a_model_say_how_to_give_one():
    with pytest.raises(ConfigError, match="--endpoint"):
        build("bash")


def test_options_that_an_agent_does_not_know_are_refused(replay):
    with pytest.raises(ConfigError, match=r"agent_options: step_limit"):
        build(f"replay:{replay}", options={"step_limit": 3})
    with pytest.raises(ConfigError, match="takes no options"):
        build("gold", options={"steps": 3})
