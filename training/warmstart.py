"""The warm start: a tiny policy learns the tasks' language and manners from scripted, imperfect demonstrations.

The teacher is right only some of the time, so the policy ends where reinforcement learning has something to do: it
knows how to read, edit, test and submit, and guesses which edit. Demonstrations are really executed episodes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch

from aem_harness.aem_checkpoints.card import Card, Method, Serving
from aem_harness.agents.templates import Prompts
from aem_harness.training import tasks
from aem_harness.training.checkpoint import load_policy, save_policy
from aem_harness.training.config import WarmStartConfig
from aem_harness.training.environment import PROMPTS, Episode, Skill, demonstration
from aem_harness.training.folder import Folder, enter, parent_of
from aem_harness.training.guard import certify_bug_fixes
from aem_harness.training.model import Model
from aem_harness.training.reference import Report, evaluate, scaffold, score, training_of
from aem_harness.training.rollouts import EpisodeLimits, Rollout, demonstrated, tensors
from aem_harness.training.start import policy_folder
from aem_harness.training.tokenizer import Chat, train_tokenizer

BUCKET = 8  # steps whose batches are drawn together and sorted by length, so that little is padding


def train(config: WarmStartConfig, out: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Train from nothing, or on from `config.start`, and return the folder of the final checkpoint."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    prompts = Prompts.load(PROMPTS)
    pool = list(tasks.tasks("train", seed=tasks.TRAIN_SEED, count=config.demonstrations))
    held_out = list(tasks.tasks("test", seed=tasks.TEST_SEED, count=config.evaluate_tasks))
    skill, random = Skill(config.right, config.tests, config.attempts), Random(config.seed)
    episodes = [demonstration(task, skill, random, prompts) for task in pool]
    model, tokenizer = load_policy(policy_folder(config.start)) if config.start else make_policy(episodes, config)
    chat = Chat(tokenizer)
    limits = EpisodeLimits(context=model.config.max_position_embeddings)
    rollouts = [demonstrated(episode, chat) for episode in episodes]
    rollouts = [rollout for rollout in rollouts if len(rollout.ids) <= limits.context]
    optimizers = make_optimizers(model, config)
    with Folder(out, config, resume=resume) as folder:
        provenance = _card(config, folder, limits, certify_bug_fixes(pool))
        enter(out, config, provenance)
        if folder.state is not None:
            model.load_state_dict(folder.state["model"])
            for optimizer, state in zip(optimizers, folder.state["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        for step in range(folder.step + 1, config.steps + 1):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * schedule(step, config)
            batch = batch_of(step, rollouts, config)
            metrics: dict[str, Any] = {"step": step, **learn(model, optimizers, batch, chat.pad, config)}
            if (config.evaluate_every and step % config.evaluate_every == 0) or step == config.steps:
                metrics |= evaluate(model, chat, prompts, held_out, limits)
            folder.log(metrics)
            if step % config.checkpoint_every == 0 or step == config.steps:
                states = [optimizer.state_dict() for optimizer in optimizers]
                folder.save(step, model=model.state_dict(), optimizers=states)
            report(metrics)
        save_policy(out / "checkpoint", model, tokenizer, provenance)
    load_policy(out / "checkpoint")
    return out / "checkpoint"


def make_policy(episodes: list[Episode], config: WarmStartConfig) -> tuple[Model, Any]:
    """A policy that knows nothing, and a tokenizer for what is said in the episodes."""
    texts = ["\n".join(message["content"] for message in episode.messages) for episode in episodes[:3000]]
    tokenizer = train_tokenizer(texts, vocabulary=config.vocabulary)
    return Model(config.model.model_copy(update={"vocab_size": len(tokenizer)})), tokenizer


def make_optimizers(model: Model, config: WarmStartConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms.

    Both get the learning rate as `initial_lr`, for the schedule.
    """
    hidden = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay)
    adam = torch.optim.AdamW(others, config.learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [muon, adam]


def learn(
    model: Model, optimizers: list[torch.optim.Optimizer], batch: list[Rollout], pad: int, config: WarmStartConfig
) -> dict[str, float]:
    """One step of next-token prediction: the replies in full, everything else at a lower weight."""
    inputs_B_T, targets_B_T, replies_B_T = tensors(batch, pad)
    logprobs_B_T, _ = score(model, inputs_B_T, targets_B_T, replies_B_T, temperature=1.0, bfloat16=config.bfloat16)
    context_B_T = (targets_B_T != pad).long() - replies_B_T
    on_replies = -(logprobs_B_T * replies_B_T).sum() / replies_B_T.sum()
    on_context = -(logprobs_B_T * context_B_T).sum() / context_B_T.sum()
    model.zero_grad(set_to_none=True)
    (on_replies + config.context_loss * on_context).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    for optimizer in optimizers:
        optimizer.step()
    return {"loss": on_replies.item(), "gradient_norm": float(norm)}


def batch_of(step: int, rollouts: list[Rollout], config: WarmStartConfig) -> list[Rollout]:
    """The batch of a step: rollouts of similar length, from a random draw that BUCKET steps share."""
    bucket, place = divmod(step - 1, BUCKET)
    random = Random(f"{config.seed}:{bucket}")
    drawn = sorted(random.sample(rollouts, config.batch * BUCKET), key=lambda rollout: len(rollout.ids))
    order = random.sample(range(BUCKET), BUCKET)
    return drawn[order[place] * config.batch : (order[place] + 1) * config.batch]


def schedule(step: int, config: WarmStartConfig) -> float:
    """Linear warm-up, then a cosine to 5 % of the learning rate."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return min(1.0, step / config.warmup) * (0.05 + 0.95 * cosine)


def _card(config: WarmStartConfig, folder: Folder, limits: EpisodeLimits, certificate: Mapping[str, Any]) -> Card:
    return Card(
        name=config.name,
        path=".",
        parent=parent_of(config.start) if config.start else "",
        licence="MIT",
        description="Supervised on scripted demonstrations; the start of the tiny policies.",
        method=Method(kind="other", base="supervised", parameters={"lr": config.learning_rate}),
        training=training_of(config, folder, certificate),
        serving=Serving(max_model_len=limits.context, flags={"enforce-eager": True}),  # nothing to gain by compiling
        scaffold=scaffold(limits),
        sampling={"temperature": 1.0, "max_tokens": limits.reply, "logprobs": 20},
    )
