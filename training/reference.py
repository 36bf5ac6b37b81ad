"""The reference trainer: multi-turn reinforcement learning in plain PyTorch, on one machine, in one file.

A step is: draw tasks -> play each `group` times -> reward -> base advantages -> old-policy log-probabilities and
entropies -> `aem.modulate` -> clipped loss -> AdamW. Baseline and AEM differ by that one call. Every step draws from
generators seeded by (seed, step), so a run that was killed and resumed makes the same steps as one that was not.

Axes: B rollouts, T token positions.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from aem_harness.aem_checkpoints.card import Card, Method, Scaffold, Serving, Training
from aem_harness.agents.templates import Prompts
from aem_harness.training import advantages, aem, baselines, diagnostics, gradients, tasks
from aem_harness.training.bases import base_advantages
from aem_harness.training.checkpoint import load_policy, save_policy
from aem_harness.training.config import Common, RlConfig
from aem_harness.training.environment import PROMPTS
from aem_harness.training.folder import Folder, enter, parent_of
from aem_harness.training.guard import certify_bug_fixes
from aem_harness.training.loss import Loss, logprobs_and_entropies, policy_loss, token_mean
from aem_harness.training.model import Model
from aem_harness.training.rollouts import EpisodeLimits, Rollout, play, tensors
from aem_harness.training.start import policy_folder
from aem_harness.training.tokenizer import Chat
from aem_harness.training.watch import HELD, Watcher, due

Report = Callable[[Mapping[str, Any]], None]
ROWS = 16  # rollouts that go through the model at once when scored


@dataclass(frozen=True)
class Batch:
    """What an update reads. `loss_mask_B_T` is as sampled; `kept_B` says which rollouts the loss counts."""

    inputs_B_T: Tensor
    targets_B_T: Tensor
    loss_mask_B_T: Tensor
    rewards_B: Tensor
    groups_B: Tensor
    kept_B: Tensor


def train(
    config: RlConfig,
    out: Path,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
    watcher: Watcher | None = None,
) -> Path:
    """Train and return the folder of the final checkpoint. `report` gets each step's metrics as they are logged.

    `watcher` gets the checkpoint of every step that `config.gate` names; after a kill, of the saved one first.
    """
    torch.set_num_threads(config.threads)
    model, tokenizer = load_policy(policy_folder(config.start))
    chat, prompts = Chat(tokenizer), Prompts.load(PROMPTS)
    start = load_policy(policy_folder(config.start))[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        config.learning_rate,
        betas=(0.9, 0.95),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    pool = list(tasks.tasks("train", seed=tasks.TRAIN_SEED, count=config.tasks))
    held_out = list(tasks.tasks("test", seed=tasks.TEST_SEED, count=config.evaluate_tasks))
    limits = EpisodeLimits(config.max_steps, config.max_reply, model.config.max_position_embeddings)
    with Folder(out, config, resume=resume) as folder:
        provenance = card(config, folder, limits, certify_bug_fixes(pool))
        enter(out, config, provenance)
        if folder.state is not None:
            model.load_state_dict(folder.state["model"])
            optimizer.load_state_dict(folder.state["optimizer"])

        def watch(step: int) -> None:
            if watcher and due(config.gate, step, config.steps, out):
                checkpoint = out / HELD / f"step-{step}"
                save_policy(checkpoint, model, tokenizer, provenance)
                watcher(step, checkpoint)

        watch(folder.step)
        for step in range(folder.step + 1, config.steps + 1):
            started = time.perf_counter()
            rollouts, groups, drawn = sample(model, chat, prompts, pool, limits, config, step)
            played = time.perf_counter()
            batch = make_batch(rollouts, groups, chat.pad, config, limits.context)
            metrics = update(model, optimizer, batch, config, step, start=start)
            seconds = time.perf_counter() - started
            tokens = int(batch.loss_mask_B_T.sum())
            metrics = {
                "step": step,
                **describe(rollouts),
                "groups_drawn": drawn,
                **metrics,
                "tokens": tokens,
                "tokens_per_second": tokens / seconds,
                "seconds": seconds,
                "seconds_rollout": played - started,
            }
            if (config.evaluate_every and step % config.evaluate_every == 0) or step == config.steps:
                metrics |= evaluate(model, chat, prompts, held_out, limits)
            folder.log(metrics)
            if _due(config, step):
                folder.show(step, [sample_of(rollout) for rollout in rollouts[: config.samples]])
            gated = due(config.gate, step, config.steps, out)
            if step % config.checkpoint_every == 0 or step == config.steps or gated:
                folder.save(step, model=model.state_dict(), optimizer=optimizer.state_dict())
            report(metrics)
            watch(step)
        save_policy(out / "checkpoint", model, tokenizer, provenance)
    return out / "checkpoint"


def sample(
    model: Model,
    chat: Chat,
    prompts: Prompts,
    pool: Sequence[tasks.BugFix],
    limits: EpisodeLimits,
    config: RlConfig,
    step: int,
) -> tuple[list[Rollout], list[int], int]:
    """A batch of rollouts, the group of each, and how many groups were drawn.

    With dynamic sampling, groups whose rewards are all equal are dropped and others drawn, up to
    `config.resampling_rounds` times; the batch may then stay short (or empty, which makes no update).
    """
    random = Random(f"{config.seed}:{step}")
    generator = torch.Generator().manual_seed(random.getrandbits(63))
    base = config.resolved_base
    kept: list[list[Rollout]] = []
    drawn = 0
    for _ in range(config.resampling_rounds if base.dynamic_sampling else 1):
        chosen = random.sample(pool, config.prompts)
        repeated = [task for task in chosen for _ in range(config.group)]
        rollouts = play(
            model, chat, repeated, prompts, limits=limits, temperature=config.temperature, generator=generator
        )
        groups = [rollouts[start : start + config.group] for start in range(0, len(rollouts), config.group)]
        drawn += len(groups)
        if base.dynamic_sampling:
            groups = [group for group in groups if len({rollout.episode.reward for rollout in group}) > 1]
        kept += groups
        if len(kept) >= config.prompts:
            break
    kept = kept[: config.prompts]
    return [r for group in kept for r in group], [g for g, group in enumerate(kept) for _ in group], drawn


def make_batch(
    rollouts: Sequence[Rollout], groups: Sequence[int], pad: int, config: RlConfig, context: int = EpisodeLimits.context
) -> Batch:
    """Rollouts as tensors, their rewards as the base sees them, and whom the loss leaves out.

    `context` is the longest conversation that the policy can read, in tokens: where the overlong punishment is whole.
    """
    if not rollouts:
        empty = torch.zeros(0, 1, dtype=torch.long)
        return Batch(empty, empty, empty, torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    base = config.resolved_base
    inputs_B_T, targets_B_T, loss_mask_B_T = tensors(rollouts, pad)
    rewards_B = torch.tensor([rollout.episode.reward for rollout in rollouts])
    ends = [rollout.episode.status for rollout in rollouts]
    limited_B = torch.tensor([end is not None and end.at_a_limit for end in ends])
    kept_B = ~limited_B if base.compact_filtering else torch.ones_like(limited_B)
    if base.compact_filtering:
        rewards_B = rewards_B * kept_B
    if base.overlong_cache is not None:
        lengths_B = torch.tensor([len(rollout.ids) for rollout in rollouts])
        rewards_B = rewards_B + advantages.overlong_penalty(lengths_B, max_length=context, cache=base.overlong_cache)
    return Batch(inputs_B_T, targets_B_T, loss_mask_B_T, rewards_B, torch.tensor(groups), kept_B)


def _modulated(
    base_B: Tensor, logprobs_B_T: Tensor, entropies_B_T: Tensor, batch: Batch, config: RlConfig, step: int
) -> aem.Modulation:
    """The base's advantages, by the old policy's log-probabilities and entropies, as the configuration has them."""
    settings = config.aem or aem.AemConfig(lam=0.0)  # lambda 0 is the base itself; its statistics are worth seeing too
    if settings.shuffle_seed is not None:
        settings = settings.model_copy(update={"shuffle_seed": hash((settings.shuffle_seed, step)) & 0xFFFFFFFF})
    relatives = {
        "empg": lambda: baselines.empg(base_B, entropies_B_T, batch.loss_mask_B_T),
        "repo_r": lambda: baselines.repo_r(base_B, logprobs_B_T, batch.loss_mask_B_T),
    }
    return aem.modulate(
        relatives[config.baseline]() if config.baseline else base_B,
        entropies_B_T,
        batch.loss_mask_B_T,
        batch.groups_B,
        settings,
        kept_B=batch.kept_B,
        logprobs_B_T=logprobs_B_T,
    )


def update(
    model: Model,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: RlConfig,
    step: int,
    *,
    start: Model | None = None,
) -> dict[str, float]:
    """One policy update. Returns its statistics; `seconds_aem` is the time spent in modulation alone.

    `start` is the policy that training began with: the reference of a KL term, and of the logged `kl_to_start`.
    """
    if not len(batch.rewards_B):
        return {"skipped": 1.0}
    base = config.resolved_base

    def scored(rows: Tensor | slice, policy: Model = model) -> tuple[Tensor, Tensor]:
        chosen = batch.inputs_B_T[rows], batch.targets_B_T[rows], batch.loss_mask_B_T[rows]
        return score(policy, *chosen, temperature=config.temperature, bfloat16=config.bfloat16)

    updates = config.epochs * config.minibatches
    with torch.set_grad_enabled(updates == 1):  # a single update is made where the old policy stands: one pass does
        first_B_T = scored(slice(None))
    old_logprobs_B_T, old_entropies_B_T = (values.detach() for values in first_B_T)
    base_B = base_advantages(base, batch.rewards_B, batch.groups_B)
    started = time.perf_counter()
    modulation = _modulated(base_B, old_logprobs_B_T, old_entropies_B_T, batch, config, step)
    seconds_aem = time.perf_counter() - started
    states_N = diagnostics.shared_states(batch.inputs_B_T, modulation.spans, before=1)
    reference_B_T = None
    if start is not None and (base.loss.kl or _due(config, step)):
        with torch.no_grad():
            reference_B_T = scored(slice(None), start)[0]
    mask_B_T = batch.loss_mask_B_T * batch.kept_B[:, None]
    totals: Counter[str] = Counter()
    order = torch.Generator().manual_seed(hash((config.seed, step)) & 0xFFFFFFFF)
    parameters = list(model.parameters())
    compared = _compares(config, step)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(base_B), generator=order).chunk(config.minibatches):
            logprobs_B_T, entropies_B_T = scored(rows) if updates > 1 else (values[rows] for values in first_B_T)

            def loss_of(advantages_B_T: Tensor) -> Loss:
                chosen = logprobs_B_T, old_logprobs_B_T[rows], advantages_B_T[rows], mask_B_T[rows]  # noqa: B023
                kept = None if reference_B_T is None else reference_B_T[rows]  # noqa: B023
                return policy_loss(*chosen, base.loss, entropies_B_T=entropies_B_T, reference_logprobs_B_T=kept)  # noqa: B023

            loss = loss_of(modulation.advantages_B_T)
            gradient = gradients.gradient_of(loss.value, parameters)
            scale = 1.0
            if compared:
                plain = gradients.gradient_of(loss_of(base_B[:, None].expand_as(mask_B_T)).value, parameters)
                difference = gradients.compare(plain, gradient)
                totals.update(difference)
                if config.control == "step_matched":
                    gradient, scale = plain, difference["gradient_norm_ratio"]
            gradients.put(parameters, gradient, scale)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
            optimizer.step()
            totals.update({"loss": loss.value.item(), "gradient_norm": float(norm)})
            totals.update({name: value.item() for name, value in loss.stats.items()})
    return {
        "token_entropy": float((old_entropies_B_T * batch.loss_mask_B_T).sum() / batch.loss_mask_B_T.sum()),
        **{name: value / updates for name, value in totals.items()},
        **modulation.stats,
        **aem.of_states(modulation, old_logprobs_B_T, base_B, states_N, batch.kept_B[modulation.spans.rows_N]),
        **({} if reference_B_T is None else {"kl_to_start": kl_to(reference_B_T, old_logprobs_B_T, batch)}),
        "seconds_aem": seconds_aem,
    }


def kl_to(reference_B_T: Tensor, logprobs_B_T: Tensor, batch: Batch) -> float:
    """KL(policy || reference), nats per sampled token: the k3 estimate, a mean over all sampled tokens."""
    away_B_T = reference_B_T - logprobs_B_T
    return float(token_mean(away_B_T.exp() - away_B_T - 1, batch.loss_mask_B_T))


def _compares(config: RlConfig, step: int) -> bool:
    """Whether this step takes the base's gradient too: always for the control, which follows it."""
    if config.aem is None:
        return False
    return config.control == "step_matched" or _due(config, step)


def _due(config: RlConfig, step: int) -> bool:
    """Whether this step pays for the statistics that cost another pass."""
    return bool(config.diagnose_every and step % config.diagnose_every == 0)


def score(
    model: Model, inputs_B_T: Tensor, targets_B_T: Tensor, mask_B_T: Tensor, *, temperature: float, bfloat16: bool
) -> tuple[Tensor, Tensor]:
    """(B, T) log-probabilities and entropies (nats) of the targets, of the distribution that sampling used.

    A few rows at a time, each read no further than its last sampled token (zeros beyond): on a CPU what matters is that
    a layer's activations stay in the cache, which makes this twice as fast as the whole batch at once.
    """
    found = []
    for inputs, targets, mask in zip(*(x.split(ROWS) for x in (inputs_B_T, targets_B_T, mask_B_T)), strict=True):
        width = int(mask.any(0).nonzero().max()) + 1 if mask.any() else 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(inputs[:, :width])
        pair = logprobs_and_entropies(logits, targets[:, :width], temperature)
        found.append([torch.nn.functional.pad(values, (0, inputs.shape[1] - width)) for values in pair])
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def describe(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How the step's rollouts went."""
    count = max(len(rollouts), 1)
    ends = Counter(str(rollout.episode.status) for rollout in rollouts)
    return {
        "reward": sum(rollout.episode.reward for rollout in rollouts) / count,
        "turns": sum(rollout.episode.steps for rollout in rollouts) / count,
        **{f"end_{name}": number / count for name, number in sorted(ends.items())},
    }


def sample_of(rollout: Rollout) -> dict[str, Any]:
    """What the policy wrote in one rollout, and what came of it."""
    episode = rollout.episode
    return {
        "task": episode.task.name,
        "reward": episode.reward,
        "end": str(episode.status),
        "messages": episode.messages,
    }


def evaluate(
    model: Model,
    chat: Chat,
    prompts: Prompts,
    held_out: Sequence[tasks.BugFix],
    limits: EpisodeLimits,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Share of held-out tasks solved, greedily and sampled once at temperature 1 (the same draws every time)."""
    generator = torch.Generator().manual_seed(seed)

    def solved(temperature: float) -> float:
        rollouts = play(model, chat, held_out, prompts, limits=limits, temperature=temperature, generator=generator)
        return sum(rollout.episode.reward for rollout in rollouts) / len(rollouts)

    return {"test_greedy": solved(0.0), "test_sampled": solved(1.0)}


def card(config: RlConfig, folder: Folder, limits: EpisodeLimits, certificate: Mapping[str, Any]) -> Card:
    """The checkpoint's provenance, as the registry keeps it."""
    return Card(
        name=config.name,
        path=".",
        parent=parent_of(config.start),
        licence="MIT",
        method=Method(
            kind=("other" if config.control else "aem") if config.aem else "baseline",
            base=config.base,
            parameters={
                **(config.aem.model_dump(mode="json") if config.aem else {}),
                **({"control": config.control} if config.control else {}),
                **({"baseline": config.baseline} if config.baseline else {}),
                "lr": config.learning_rate,
            },
        ),
        training=training_of(config, folder, certificate),
        serving=Serving(max_model_len=limits.context, flags={"enforce-eager": True}),  # nothing to gain by compiling
        scaffold=scaffold(limits),
        sampling={"temperature": config.temperature, "max_tokens": limits.reply, "logprobs": 20},
    )


def training_of(config: Common, folder: Folder, certificate: Mapping[str, Any]) -> Training:
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"threads"})
    return Training(
        run=folder.path.name, step=config.steps, seeds=(config.seed,), config=values, certificate=certificate
    )


def scaffold(limits: EpisodeLimits) -> Scaffold:
    """The agent that the policy was trained as. A reply without a command ended an episode there, so it does here."""
    return Scaffold(agent="bash", options={"prompts": PROMPTS, "steps": limits.steps, "format_errors": 1})
