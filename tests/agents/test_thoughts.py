"""Thoughts that a server takes out of replies: sent back in its own field, recorded, counted where they get lost."""

import json
import re
from pathlib import Path

import pytest

from aem_harness.agents.bash import SENTINEL, BashAgent, BashOptions
from aem_harness.agents.build import as_begun, build
from aem_harness.agents.endpoint_check import look_at_endpoint
from aem_harness.agents.messages import called, said, sent
from aem_harness.agents.policy import EndpointPolicy, Retry
from aem_harness.api.running import Selection, driving, enter_run, quiet
from aem_harness.api.serving import Served
from aem_harness.api.sites import HERE
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.instances.load import load
from aem_harness.harness.run.counts import remarks
from aem_harness.harness.run.trajectory import Summary
from aem_harness.harness.types import Completion
from tests.agents.model_server import model_server, say
from tests.agents.workplace import LocalEnvironment, Transcript, instance

DONE = {"role": "assistant", "content": f"```bash\necho {SENTINEL}\n```"}
LOOK = {"role": "assistant", "content": "```bash\nls\n```"}
CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
END = {"id": "c2", "type": "function", "function": {"name": "bash", "arguments": f'{{"command": "echo {SENTINEL}"}}'}}


def conversation(place: Path, *replies: dict, **options) -> tuple[list[dict], list[dict]]:
    """What the server is asked in its last call, and what is recorded of the rollout."""
    transcript, environment = Transcript(), LocalEnvironment.repository(place)
    with model_server(say(*replies)) as server, EndpointPolicy("tiny", [server.url]) as policy:
        BashAgent(policy, BashOptions(**options)).run(instance(place), environment, transcript, seed=0)
    return server.requests[-1]["messages"], transcript.messages


@pytest.mark.parametrize(
    ("came", "sent"),
    [
        ({"reasoning": "Look first."}, {"reasoning": "Look first."}),  # vLLM
        ({"reasoning_content": "Look first."}, {"reasoning_content": "Look first."}),  # SGLang, DeepSeek, llama.cpp
        ({"reasoning": "Look first.", "reasoning_content": "Look first."}, {"reasoning": "Look first."}),
        ({"reasoning": None, "reasoning_content": "Look first."}, {"reasoning_content": "Look first."}),
        ({"reasoning": None}, {}),
        ({"reasoning": ""}, {}),
        ({"reasoning": {"text": "x"}}, {}),  # no text: it could not be sent as it came
        ({"reasoning": {"effort": "high"}, "reasoning_content": "Look first."}, {"reasoning_content": "Look first."}),
    ],
)
def test_they_go_back_in_the_field_in_which_they_came(tmp_path, came, sent):
    asked, recorded = conversation(tmp_path / "r", LOOK | came, DONE)
    assert asked[2] == LOOK | sent
    assert {key: value for key, value in recorded[2].items() if key != "extra"} == asked[2]


def test_they_go_back_with_calls_of_tools(tmp_path):
    said = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "Look first."}
    asked, _ = conversation(tmp_path / "r", said, said | {"tool_calls": [END]}, prompts="bash-tool-1")
    assert asked[2] == said
    assert asked[3]["role"] == "tool"


def test_an_agent_of_ones_own_sends_none_without_asking_for_it():
    """Its description would not say so, and a run that was begun before would go on in another way."""
    thoughtful = Completion(content="ls", reasoning="Look first.", reasoning_field="reasoning")
    for message in (said(thoughtful, []), called("ls", thoughtful, [], malformed=False)):
        assert sent(message) == {"role": "assistant", "content": "ls"}
        assert message["extra"]["reasoning"] == "Look first."


def test_dropped_they_are_recorded_all_the_same(tmp_path):
    asked, recorded = conversation(tmp_path / "r", LOOK | {"reasoning": "Look first."}, DONE, thoughts="drop")
    assert asked[2] == LOOK
    assert recorded[2]["extra"]["reasoning"] == "Look first."


def test_with_a_malformed_reply_they_leave_the_conversation_as_it_does(tmp_path):
    asked, recorded = conversation(tmp_path / "r", {"role": "assistant", "content": "Hm.", "reasoning": "Look."}, DONE)
    assert [message["role"] for message in asked] == ["system", "user", "user"]
    assert not any("reasoning" in message for message in asked)
    assert recorded[2]["extra"]["reasoning"] == "Look."


def test_what_is_done_with_them_is_part_of_what_identifies_a_policy():
    with model_server(say("x")) as server, EndpointPolicy("tiny", [server.url]) as policy:
        for spec in ("bash", "deepswe"):
            assert build(spec, policy=policy).describe()["thoughts"] == "send"
            dropped = build(spec, policy=policy, options={"thoughts": "drop"}).describe()
            assert "thoughts" not in dropped
            assert "thoughts" not in dropped["budget"]
        with pytest.raises(ConfigError, match="thoughts"):
            build("bash", policy=policy, options={"thoughts": "keep"})


@pytest.mark.parametrize("spec", ["bash", "deepswe"])
def test_a_run_that_was_begun_without_them_goes_on_without(spec):
    assert as_begun(spec, {"steps": 3}, None) == {"steps": 3}
    assert as_begun(spec, {"steps": 3}, {"kind": spec, "thoughts": "send"}) == {"steps": 3}
    assert as_begun(spec, {"steps": 3}, {"kind": spec}) == {"steps": 3, "thoughts": "drop"}
    assert as_begun("own.module:Agent", {}, {"kind": "own"}) == {}


def test_the_folder_of_an_earlier_release_is_continued_as_it_was_begun(tmp_path):
    loaded = load("tiny")
    selection, config = Selection(loaded.tasks[:1], loaded), RunConfig(arm="a", dataset="tiny")
    folder = tmp_path / "run"
    with model_server(say("x")) as server:
        served = Served([server.url], "tiny", None)

        def begin() -> str:
            with (
                enter_run(folder, config, selection, 1) as store,
                driving(store, selection, served, HERE, quiet()) as driver,
            ):
                assert driver.recipe.options.get("thoughts", "send") == driver.agent.options.thoughts
                return driver.agent.options.thoughts

        assert begin() == "send"
        written = json.loads((folder / "run.json").read_text())
        assert written["agent"].pop("thoughts") == "send"
        (folder / "run.json").write_text(json.dumps(written))
        assert begin() == "drop"
        assert json.loads((folder / "run.json").read_text())["agent"] == written["agent"]


def reply(prompt: int, completion: int, thought: str = "", role: str = "assistant", text: str = "ls") -> dict:
    extra = {"prompt_tokens": prompt, "completion_tokens": completion, "reasoning": thought, "response": {}}
    return {"role": role, "content": text, "extra": extra}


@pytest.mark.parametrize(
    ("second", "lost"),
    [
        (reply(100 + 50 + 20, 5), 0),  # the reply and an observation
        (reply(100 + 2 + 20, 5), 1),  # the observation, and of the reply its command alone
        (reply(100 + 2 + 60, 5), 0),  # behind a long observation it cannot be told
        (reply(0, 0), 0),  # a server that counts no tokens
    ],
)
def test_a_prompt_that_grew_by_less_than_the_reply_lacks_its_thoughts(second, lost):
    summary = Summary()
    for message in (reply(100, 50, "t" * 150), second):
        summary.add(message)
    facts = summary.facts()
    assert (facts["thoughts"], facts["thoughts_lost"]) == (1, lost)


def test_a_reply_that_leaves_the_conversation_and_one_without_thoughts_lose_none():
    for first in (reply(100, 50, "t" * 150, role="user"), reply(100, 50)):
        summary = Summary()
        for message in (first, reply(110, 5)):
            summary.add(message)
        assert summary.facts()["thoughts_lost"] == 0


@pytest.mark.parametrize(
    ("next_prompt", "lost"),
    [
        (250 + 30, 0),  # the complaint about the malformed reply
        (250 - 50 + 30, 1),  # and without the thoughts of the first
        (0, 0),
    ],
)
def test_thoughts_that_go_with_the_answer_to_a_malformed_reply_are_lost(next_prompt, lost):
    """findings/qwen3-forgets-its-thoughts-at-a-message-of-role-user.sh"""
    summary = Summary()
    replies = [reply(100, 50, "t" * 150), reply(250, 50, "t" * 150, role="user"), reply(next_prompt, 5)]
    for message in replies:
        summary.add(message)
    assert summary.facts()["thoughts_lost"] == lost
    summary = Summary()
    for message in replies[1:]:  # none of earlier replies were there
        summary.add(message)
    assert summary.facts()["thoughts_lost"] == 0


def test_no_more_thoughts_are_lost_than_there_were():
    summary = Summary()
    summary.add(reply(100, 50, "t" * 150))
    for prompt in (250, 230, 210, 190):
        summary.add(reply(prompt, 5, role="user"))
    assert summary.facts()["thoughts_lost"] == 1


def test_text_that_the_scaffold_leaves_out_is_no_lost_thought():
    first = reply(100, 50, "t" * 15, text="c" * 15)
    first["extra"]["response"] = {"choices": [{"message": {"content": "p" * 105 + "c" * 15}}]}
    summary = Summary()
    for message in (first, reply(100 + 11 + 5, 5)):
        summary.add(message)
    assert summary.facts()["thoughts_lost"] == 0


def test_replies_that_are_thoughts_alone_are_malformed_and_counted_apart(tmp_path):
    alone = {"role": "assistant", "content": None, "reasoning": "```bash\nls\n```"}
    blank = {"role": "assistant", "content": "", "reasoning": "\n"}
    _, recorded = conversation(tmp_path / "r", alone, blank, LOOK | {"reasoning": "Look first."}, DONE)
    summary = Summary()
    for message in recorded:
        summary.add({"extra": {}, **message})
    facts = summary.facts()
    assert (facts["malformed"], facts["thoughts_alone"]) == (2, 1)


@pytest.mark.parametrize("response", [None, "repr", {}, {"choices": []}, {"choices": [None]}])
def test_responses_of_any_shape_are_summed_up(response):
    message = reply(100, 50, "t")
    message["extra"]["response"] = response
    summary = Summary()
    summary.add(message)
    assert summary.facts()["thoughts"] == 1


class Store:
    """As much of a run's store as its remarks need."""

    def __init__(self, agent, *rollouts):
        self.agent = agent
        known = [type("Progress", (), {"rollout": rollout, "grade": None}) for rollout in rollouts]
        self.progress = {("a", seed): one for seed, one in enumerate(known)}

    def begun(self, fact):
        return self.agent


@pytest.mark.parametrize(
    ("agent", "facts", "said"),
    [
        ({"kind": "bash"}, {"thoughts": 3}, "3 replies.*not sent back.*agent_options.thoughts"),
        ({"kind": "bash", "thoughts": "send"}, {"thoughts": 3}, ""),
        (
            {"kind": "bash", "thoughts": "send"},
            {"thoughts": 3, "thoughts_lost": 2},
            "^at least 2 of 3 replies.*chat template",
        ),
        ({"kind": "own"}, {"thoughts": 3}, ""),
        (
            {"kind": "own"},
            {"thoughts": 3, "thoughts_lost": 2},
            "^at least 2 of 3 replies.*the agent does not send them back, or",
        ),
        ({"kind": "bash", "thoughts": "send"}, {"thoughts": 3, "thoughts_alone": 2}, "^2 replies .*count as malformed"),
        ({"kind": "bash"}, {}, ""),  # journals of earlier releases
    ],
)
def test_the_end_of_a_run_says_where_the_model_does_not_see_them(agent, facts, said):
    found = remarks(Store(agent, facts), [("a", 0)])
    assert len(found) == bool(said)
    assert all(re.search(said, line) for line in found)


def test_beside_rollouts_of_an_earlier_release_counts_are_said_to_be_minimums():
    store = Store({"kind": "bash"}, {"steps": 9}, {"thoughts": 3, "thoughts_alone": 2})
    found = remarks(store, list(store.progress))
    assert [line.partition(",")[0] for line in found] == [
        "at least 2 replies were thoughts in a field of their own and nothing else",
        "thoughts of at least 3 replies",
    ]


@pytest.mark.parametrize(("more", "named"), [({"reasoning": "Look."}, True), ({}, False)])
def test_a_server_that_refuses_a_request_with_them_is_answered_with_the_remedy(more, named):
    asked = [{"role": "user", "content": "u"}, LOOK | more, {"role": "user", "content": "o"}]

    def refuse(handler, request):
        handler.send_json({"error": {"message": "extra fields are not permitted"}}, 422)

    with model_server(refuse) as server, EndpointPolicy("tiny", [server.url], retry=Retry(attempts=1)) as policy:
        with pytest.raises(PolicyFault, match="not permitted") as refused:
            policy.complete(asked)
    assert ("agent_options.thoughts=drop" in str(refused.value)) == named


def counting(template):
    """A server that counts the characters of what `template` makes of the messages as tokens."""

    def answer(handler, request):
        if handler.path == "/tokenize":
            handler.send_json({"count": len(template(request["messages"]))})

    return answer


def shown(message: dict) -> str:
    return message.get("reasoning", "") + str(message["content"])


def after_the_last_user(messages: list[dict]) -> str:
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    return "".join(shown(one) if place > last else str(one["content"]) for place, one in enumerate(messages))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (lambda messages: "".join(map(shown, messages)), "after tool results.* and observations in text"),
        (after_the_last_user, "after tool results.*, and shows none after observations in text"),
        (
            lambda messages: "".join(str(one["content"]) for one in messages),
            "shows no earlier thoughts after tool results.* or observations",
        ),
        (lambda messages: "", ""),  # a server that counts none
    ],
)
def test_the_doctor_says_after_which_observations_they_are_shown(template, said):
    with model_server(counting(template)) as server:
        found = [one.detail for one in look_at_endpoint(server.url) if one.what == "thoughts"]
    assert len(found) == bool(said)
    assert all(re.search(said, detail) for detail in found)
