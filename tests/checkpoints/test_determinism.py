"""Where two generations of the same prompt part, as numbers worked by hand and as properties."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.aem_checkpoints.determinism import Generation, compare, recorded_prefixes
from aem_harness.harness.errors import DataError

ANSWERS = st.lists(st.sampled_from("abc"), max_size=6).map(lambda t: Generation(tuple(t), tuple(-1.0 for _ in t)))


def answer(text: str, *logprobs: float) -> Generation:
    return Generation(tuple(text), logprobs or tuple(-1.0 for _ in text))


def test_everything_from_the_first_difference_on_diverges():
    found = compare(8, [answer("abcd"), answer("abcd"), answer("ab")], [answer("abcd"), answer("abxd"), answer("abc")])
    assert (found.concurrency, found.sequences, found.sequences_diverging) == (8, 3, 2)
    assert (found.tokens, found.tokens_diverging, found.first) == (4 + 4 + 3, 2 + 1, (2, 2))


def test_log_probabilities_count_up_to_the_first_difference_only():
    found = compare(1, [answer("abc", -1.0, -2.0, -3.0)], [answer("abx", -1.25, -2.0, -9.0)])
    assert found.logprob_shift == pytest.approx(0.25)


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=5))
def test_nothing_diverges_exactly_when_all_tokens_are_equal(pairs):
    ours, theirs = zip(*pairs, strict=True)
    found = compare(1, ours, theirs)
    assert (found.sequences_diverging == 0) == (found.tokens_diverging == 0) == (ours == theirs)
    assert found.tokens_diverging <= found.tokens
    assert compare(1, ours, ours).sequences_diverging == 0


def test_prefixes_end_before_a_reply_and_leave_out_lost_and_repeated_rollouts(tmp_path):
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant", "exit"]
    whole = [{"role": role, "content": str(place), "extra": {"x": 1}} for place, role in enumerate(roles)]
    whole[2]["reasoning"] = "sent back with its reply"
    for folder, messages in (("a/0", whole), ("a/0.attempt0", whole), ("b/0", []), ("c/0", whole[:2] + whole[-1:])):
        (tmp_path / "rollouts" / folder).mkdir(parents=True)
        (tmp_path / "rollouts" / folder / "i.traj.json").write_text(json.dumps({"messages": messages}))
    first, second = recorded_prefixes(tmp_path, 9)
    assert [message["content"] for message in first] == ["0", "1", "2", "3"]
    assert first[2] == {"role": "assistant", "content": "2", "reasoning": "sent back with its reply"}
    assert second == [{"role": "system", "content": "0"}, {"role": "user", "content": "1"}]
    assert len(recorded_prefixes(tmp_path, 1)) == 1
    with pytest.raises(DataError, match="no trajectory"):
        recorded_prefixes(tmp_path / "rollouts", 9)
