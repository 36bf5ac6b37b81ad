"""The real vLLM with a reasoning parser: what it takes out of replies it gets back, and its template shows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from aem_harness.aem_checkpoints.adding import add, cards
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from aem_harness.agents.bash import BashAgent, BashOptions
from aem_harness.agents.policy import EndpointPolicy, Sampling
from aem_harness.agents.refusals import token_count
from aem_harness.harness.run.trajectory import Summary
from tests.agents.workplace import LocalEnvironment, Transcript, instance

pytestmark = [pytest.mark.extended, pytest.mark.vllm, pytest.mark.slow, pytest.mark.usefixtures("vllm")]

# The shipped policies do not think: what one says stands for its thoughts, and its command is always the same.
PARSER = """
from vllm.reasoning import ReasoningParser, ReasoningParserManager


@ReasoningParserManager.register_module("all_is_thought")
class AllIsThought(ReasoningParser):
    def is_reasoning_end(self, input_ids):
        return False

    def extract_content_ids(self, input_ids):
        return input_ids

    def extract_reasoning(self, model_output, request):
        return model_output.replace("```", ""), "```bash\\nls\\n```"

    def extract_reasoning_streaming(self, *words, **more):
        return None
"""
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + (message['reasoning_content'] or '') "
    "+ message['content'] + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("thinking")
    weights = folder / "weights"
    shutil.copytree(Registry().get("tiny-aem").folder, weights)
    (weights / "card.yaml").unlink()
    (weights / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "parser.py").write_text(PARSER)
    flags = {"reasoning-parser-plugin": str(folder / "parser.py"), "reasoning-parser": "all_is_thought"}
    serving = {"max_model_len": 384, "flags": {"enforce-eager": True, **flags}}
    (card,) = cards("thinker", {"path": str(weights), "serving": serving}, folder)
    add(card, folder)
    known = Registry(folder)
    with Server([known.get("thinker")], known, folder / "server.log") as running:
        yield running


def replies(server: Server, place: Path, thoughts: str) -> list[dict]:
    """What is recorded of the replies of one greedy rollout, each with the message that it became."""
    transcript = Transcript()
    options = BashOptions(prompts="tiny-1", steps=3, format_errors=1, thoughts=thoughts)
    with EndpointPolicy("thinker", [server.url], Sampling(temperature=0.0, max_tokens=40)) as policy:
        BashAgent(policy, options).run(instance(place), LocalEnvironment.repository(place), transcript, seed=0)
    return [message for message in transcript.messages if message["role"] == "assistant"]


def thoughts_lost(messages: list[dict]) -> int:
    summary = Summary()
    for message in messages:
        summary.add(message)
    return summary.facts()["thoughts_lost"]


def test_thoughts_go_back_and_are_shown(server, tmp_path):
    first, second, *_ = replies(server, tmp_path / "a", "send")
    assert first["reasoning"] == first["extra"]["reasoning"] != ""
    counts = [reply["extra"] for reply in (first, second)]
    assert counts[1]["prompt_tokens"] > counts[0]["prompt_tokens"] + counts[0]["completion_tokens"]
    assert thoughts_lost([first, second]) == 0


def test_dropped_thoughts_are_missing_in_the_next_prompt(server, tmp_path):
    sent = replies(server, tmp_path / "a", "send")
    dropped = replies(server, tmp_path / "b", "drop")
    assert "reasoning" not in dropped[0]
    assert dropped[0]["extra"]["reasoning"] == sent[0]["extra"]["reasoning"]
    assert dropped[1]["extra"]["prompt_tokens"] < sent[1]["extra"]["prompt_tokens"]
    assert thoughts_lost(dropped[:2]) == 1


def test_a_prompt_is_counted_with_its_thoughts(server):
    said = {"role": "assistant", "content": "```bash\nls\n```"}
    counts = [
        token_count(server.url, None, "thinker", [{"role": "user", "content": "Fix it."}, said | more])
        for more in ({}, {"reasoning": "look at it first"})
    ]
    assert 0 < counts[0] < counts[1]
