"""The fallback server says what vLLM says: the same greedy tokens and log-probabilities, on the policies' own turns."""

from pathlib import Path
from random import Random

import pytest

from aem_harness.aem_checkpoints.adding import add, cards
from aem_harness.aem_checkpoints.determinism import answer_to, compare, recorded_prefixes
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from aem_harness.harness.io import write_json

pytestmark = [pytest.mark.extended, pytest.mark.vllm, pytest.mark.slow, pytest.mark.usefixtures("vllm")]


def prefixes(folder: Path) -> list:
    """Scripted conversations on held-out tasks, up to one of their replies."""
    from aem_harness.agents.templates import Prompts
    from aem_harness.training.environment import Skill, demonstration
    from aem_harness.training.tasks import tasks

    for number, task in enumerate(tasks("test", seed=3, count=24)):
        episode = demonstration(task, Skill(), Random(number), Prompts.load("tiny-1"))
        place = folder / "rollouts" / task.name / "0"
        place.mkdir(parents=True)
        write_json(place / f"{task.name}.traj.json", {"messages": episode.messages})
    return recorded_prefixes(folder, 24)


def test_greedy_replies_and_their_log_probabilities_are_equal_in_single_precision(tmp_path, monkeypatch):
    shipped = Registry().get("tiny-aem")
    (card,) = cards("single", {"path": str(shipped.folder), "serving": {"dtype": "float32"}}, tmp_path)
    add(card, tmp_path)
    known = Registry(tmp_path)
    prompts = prefixes(tmp_path)
    replies = {}
    for kind in ("transformers", "vllm"):
        monkeypatch.setenv("AEM_SERVER", kind)
        with Server([known.get("single")], known, tmp_path / f"{kind}.log") as server:
            replies[kind] = [answer_to(server.url, "single", prompt, 40, 0.0, 0) for prompt in prompts]
    found = compare(1, replies["transformers"], replies["vllm"])
    assert found.sequences == 24
    assert found.tokens > 24
    assert found.sequences_diverging == 0
    assert found.logprob_shift < 1e-4
