"""The plain-PyTorch policy against `transformers`, its cache against itself, and the tokenizer against its template."""

from random import Random

import pytest
import torch

from aem_harness.aem_checkpoints.card import Card
from aem_harness.agents.templates import Prompts
from aem_harness.training.checkpoint import hf_config, load_policy, save_policy
from aem_harness.training.environment import Skill, demonstration
from aem_harness.training.model import Cache, Model, ModelConfig, continue_rows
from aem_harness.training.rollouts import EpisodeLimits, demonstrated, play, tensors
from aem_harness.training.tasks import tasks
from aem_harness.training.tokenizer import Chat, train_tokenizer

PROMPTS = Prompts.load("tiny-1")
SMALL = ModelConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)


@pytest.fixture(scope="module")
def episodes():
    random = Random(0)
    return [demonstration(task, Skill(), random, PROMPTS) for task in tasks("train", seed=0, count=60)]


@pytest.fixture(scope="module")
def tokenizer(episodes):
    return train_tokenizer(message["content"] for episode in episodes for message in episode.messages)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return Model(SMALL.model_copy(update={"vocab_size": len(tokenizer)}))


def test_logits_equal_those_of_transformers(model):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = hf_config(model.config)
    theirs = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if "dtype" not in k})).eval()
    missing, unexpected = theirs.load_state_dict(model.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    theirs.tie_weights()
    ids = torch.randint(0, model.config.vocab_size, (3, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_reading_in_ragged_pieces_through_the_cache_equals_reading_at_once(model):
    """Three rows with pieces of different length, padding between them, and one row dropped on the way."""
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(0, model.config.vocab_size, (3, 24), generator=random)
    cuts = [(5, 12, 24), (9, 10, 20), (2, 12, 17)]
    whole = model(ids)
    cache, rows = Cache(model.config, 3), [0, 1, 2]
    for piece in range(3):
        if piece == 2:
            cache.keep(torch.tensor([0, 2]))
            rows = [0, 2]
        starts = [cuts[row][piece - 1] if piece else 0 for row in rows]
        lengths = [cuts[row][piece] - start for row, start in zip(rows, starts, strict=True)]
        new = torch.zeros(len(rows), max(lengths), dtype=torch.long)
        for place, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True)):
            new[place, :length] = ids[row, start : start + length]
        logits = model(new, cache, torch.tensor(lengths))
        for place, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True)):
            torch.testing.assert_close(logits[place, :length], whole[row, start : start + length], rtol=1e-4, atol=1e-4)


def test_greedy_generation_equals_recomputing_from_scratch(model):
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    replies = continue_rows(model, Cache(model.config, 2), prompts, end=-1, room_B=[6, 4], temperature=0.0)
    for prompt, reply, room in zip(prompts, replies, (6, 4), strict=True):
        ids = list(prompt)
        for _ in range(room):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert reply == ids[len(prompt) :]


def test_conversations_are_encoded_as_the_chat_template_says(tokenizer, episodes):
    chat = Chat(tokenizer)
    for episode in episodes:
        rollout = demonstrated(episode, chat)
        messages = [dict(message) for message in episode.messages]
        assert rollout.ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        opening = tokenizer.apply_chat_template(messages[:2], add_generation_prompt=True, return_dict=False)
        assert chat.prompt(messages[:2]) == opening


def test_every_message_survives_encoding_and_decoding(tokenizer, episodes):
    chat = Chat(tokenizer)
    for episode in episodes:
        for message in episode.messages:
            assert chat.reply(chat.text(message["content"])) == message["content"]


def test_the_loss_mask_covers_the_replies_and_their_end_tokens(tokenizer, episodes):
    chat = Chat(tokenizer)
    rollouts = [demonstrated(episode, chat) for episode in episodes[:8]]
    _, targets, mask = tensors(rollouts, chat.pad)
    for row, rollout in enumerate(rollouts):
        replies = [m["content"] for m in rollout.episode.messages if m["role"] == "assistant"]
        assert chat.reply(targets[row][mask[row] == 1].tolist()) == "".join(replies)
        assert int((targets[row][mask[row] == 1] == chat.end).sum()) == len(replies)


def test_played_rollouts_record_exactly_what_the_policy_sampled(model, tokenizer):
    """Even a random policy: ids stay within the context, and sampled ids decode to the replies acted on."""
    chat = Chat(tokenizer)
    limits = EpisodeLimits(steps=3, reply=20, context=120)
    chosen = [task for task in tasks("train", seed=0, count=6) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    rollouts = play(model, chat, chosen, PROMPTS, limits=limits, temperature=1.0, generator=generator)
    for rollout in rollouts:
        assert len(rollout.ids) == len(rollout.sampled) <= limits.context
        assert rollout.episode.status is not None
        sampled = [i for i, chosen in zip(rollout.ids, rollout.sampled, strict=True) if chosen]
        replies = [m["content"] for m in rollout.episode.messages if m["role"] == "assistant"]
        assert chat.reply(sampled) == "".join(replies)


def test_a_saved_policy_loads_here_and_in_transformers(model, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_policy(tmp_path / "policy", model, tokenizer, Card(name="x", path="."))
    loaded, again = load_policy(tmp_path / "policy")
    ids = torch.tensor([again.encode("lib/x.py is wrong: ", add_special_tokens=False)])
    assert ids.tolist() == [tokenizer.encode("lib/x.py is wrong: ", add_special_tokens=False)]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loaded(ids), model(ids), rtol=0.1, atol=0.1)  # stored in bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template == tokenizer.chat_template
    assert theirs.generation_config.eos_token_id == tokenizer.eos_token_id
