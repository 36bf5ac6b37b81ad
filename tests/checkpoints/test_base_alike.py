"""An adapter of which a server applies nothing is found by its answers, which are its base's."""

import itertools

import pytest

from aem_harness.aem_checkpoints import client
from aem_harness.aem_checkpoints.fingerprint import CANARIES, base_it_equals

BASE, OTHER = [-0.25, -1.5], [-0.25, -1.25]


@pytest.fixture
def served(monkeypatch):
    """What a server answers for the adapter, request by request; its base answers the same each time."""

    def serve(*answers):
        told = itertools.cycle(answers)
        models = {"data": [{"id": "adapter", "parent": "base"}, {"id": "base"}]}
        monkeypatch.setattr(client, "ask", lambda url: models)

        def post(url, body):
            values = next(told) if body["model"] == "adapter" else BASE
            return {"choices": [{"logprobs": {"token_logprobs": values}}]}

        monkeypatch.setattr(client, "post", post)

    return serve


def test_a_loaded_server_whose_last_digits_vary_does_not_hide_it(served):
    served(OTHER, OTHER, BASE)
    assert base_it_equals("http://server/v1", "adapter") == "base"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([OTHER], id="adapted"),
        pytest.param([BASE] * (len(CANARIES) - 1) + [OTHER] * 3, id="adapted in what one prompt shows"),
        pytest.param([[]], id="no log-probabilities"),
    ],
)
def test_an_adapter_that_is_applied_is_not_its_base(served, answers):
    served(*answers)
    assert base_it_equals("http://server/v1", "adapter") == ""
