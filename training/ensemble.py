"""Many training runs in `exploration`'s world at once, by the product's own advantages, modulation and loss.

Each of the W worlds is a training run of its own: its gradient reads its own rollouts only. The optimizer is plain
gradient descent, so that a gradient's length is the step's length. Arms differ by one thing each and see the same
worlds and the same uniform draws.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from aem_harness.harness.config import set_dotted
from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.types import Record
from aem_harness.training import aem
from aem_harness.training.advantages import informative
from aem_harness.training.bases import Base, base_advantages, base_named
from aem_harness.training.diagnostics import correlation
from aem_harness.training.exploration import Played, Tables, WorldConfig, Worlds
from aem_harness.training.loss import LossConfig, policy_loss

ArmName = Literal["base", "aem", "reversed", "shuffled", "step_matched", "entropy_bonus"]
ARMS: tuple[ArmName, ...] = ("base", "aem", "reversed", "shuffled", "step_matched", "entropy_bonus")
MEASURES = (
    "success",
    "response_entropy",
    "state_entropy",
    "negative_tokens",
    "gradient_cosine",
    "gradient_norm_ratio",
    "step_length",
    "alpha_spread",
    "correlation",
    "drift_base",
    "drift_added",
)


class EnsembleConfig(Record, allow_inf_nan=False):
    """`learning_rate` is that of GRPO; another base's is set so that its first steps are as long as GRPO's. `updates`:
    passes over a batch; with one, every ratio is 1 and GSPO is GRPO. `bonus`: the entropy bonus of its arm."""

    world: WorldConfig = WorldConfig()
    seeds: int = Field(default=64, gt=1)
    first_seed: int = Field(default=0, ge=0)
    steps: int = Field(default=160, gt=9)
    learning_rate: float = Field(default=100.0, gt=0)
    updates: int = Field(default=1, gt=0)
    base: str = "grpo"
    method: aem.AemConfig = aem.AemConfig()
    bonus: float = Field(default=0.02, ge=0)


def ensemble_config(name: str | None, overrides: Iterable[str] = ()) -> EnsembleConfig:
    """The shipped ensemble, with method and base of the configuration `name`, and `a.b=value` over both.

    Raises ConfigError for an unknown setting, a base without a name here, and a method that only holds for a batch of
    several worlds at once.
    """
    values: dict[str, Any] = {}
    if name:
        from aem_harness.training.config import RlConfig, find_config, load_config

        loaded = load_config(find_config(name))
        if not isinstance(loaded, RlConfig):
            raise ConfigError(f"{name} is no configuration of the reference trainer: set base and method.lam by hand")
        values = {"base": loaded.base, "method": (loaded.aem or aem.AemConfig()).model_dump(mode="json")}
    for override in overrides:
        set_dotted(values, override)
    with validating(ConfigError, "--verify-method"):
        config = EnsembleConfig.model_validate(values)
    base = base_named(config.base)
    if config.method.scope == "batch":
        raise ConfigError("--verify-method trains many worlds in one batch: scope batch would mix them")
    if base.loss.ratio == "sequence" and "updates" not in values:
        config = config.model_copy(update={"updates": 4})  # with one, the ratio is 1 and it is GRPO
    return config


@dataclass(frozen=True)
class Step:
    """One batch as the update reads it. B = W * P * G rows, world by world."""

    logprobs_B_T: Tensor
    entropies_B_T: Tensor
    mask_B_T: Tensor
    trained_B_T: Tensor
    base_B_T: Tensor
    modulation: aem.Modulation


def run(
    arm: ArmName, config: EnsembleConfig, report: Callable[[int], None] = lambda _: None, *, rate: float | None = None
) -> dict[str, Tensor]:
    """Train every world by this arm; returns MEASURES as (steps, W) tensors, each measured before the step's update."""
    world = Worlds(config.world, config.seeds, config.first_seed)
    base = base_named(config.base)
    rate = learning_rate(config) if rate is None else rate
    tables = world.start()
    generator = torch.Generator().manual_seed(config.first_seed + 1_000_003)
    found: dict[str, list[Tensor]] = {name: [] for name in MEASURES}
    for number in range(config.steps):
        played = world.play(tables, generator)
        step = prepare(world, tables, played, base, method_of(arm, config.method, number))
        before = [values.detach().clone() for values in tables.parameters]
        measured = {**state_of(world, tables), **diagnose(world, tables, played, step)}
        for update in range(config.updates):
            logprobs_B_T, entropies_B_T, _ = world.score(tables, played)
            loss = loss_config(base.loss, arm, config)
            advantages_B_T = step.base_B_T if arm in ("base", "entropy_bonus") else step.modulation.advantages_B_T

            def gradient_of(advantages_B_T: Tensor) -> list[Tensor]:
                chosen = logprobs_B_T, step.logprobs_B_T, advantages_B_T, step.trained_B_T, entropies_B_T  # noqa: B023
                return gradient(world, tables, loss, *chosen)  # noqa: B023

            moving = gradient_of(advantages_B_T)
            plain = gradient_of(step.base_B_T) if advantages_B_T is not step.base_B_T else moving
            difference = compare(world, plain, moving)
            if arm == "step_matched":
                moving = scaled(world, plain, difference["gradient_norm_ratio"])
            if not update:
                measured |= difference
            with torch.no_grad():
                for values, slope in zip(tables.parameters, moving, strict=True):
                    values -= rate * slope
        moved = [values.detach() - old for values, old in zip(tables.parameters, before, strict=True)]
        measured["step_length"] = norms(world, moved)
        for name in MEASURES:
            found[name].append(measured[name])
        report(number + 1)
    return {name: torch.stack(values) for name, values in found.items()}


def prepare(world: Worlds, tables: Tables, played: Played, base: Base, method: aem.AemConfig) -> Step:
    """Advantages of the base, and what modulation makes of them, from the policy that sampled."""
    with torch.no_grad():
        logprobs_B_T, entropies_B_T, mask_B_T = world.score(tables, played)
    rewards_B = played.rewards_B
    groups_B = torch.arange(world.count * world.config.tasks).repeat_interleave(world.config.group)
    limited_B = rewards_B == 0  # in this world a rollout that fails ran into the limit of turns
    kept_B = torch.ones_like(limited_B)
    if base.compact_filtering:
        kept_B = ~limited_B
    if base.dynamic_sampling:
        kept_B = kept_B & informative(rewards_B, groups_B)
    advantages_B = base_advantages(base, rewards_B, groups_B)
    modulation = aem.modulate(advantages_B, entropies_B_T, mask_B_T, groups_B, method, kept_B=kept_B)
    base_B_T = torch.where(mask_B_T, advantages_B[:, None], torch.zeros(()))
    return Step(logprobs_B_T, entropies_B_T, mask_B_T, mask_B_T & kept_B[:, None], base_B_T, modulation)


def method_of(arm: ArmName, method: aem.AemConfig, step: int) -> aem.AemConfig:
    if arm == "reversed":
        return method.model_copy(update={"direction": "reversed"})
    return method.model_copy(update={"shuffle_seed": step}) if arm == "shuffled" else method


def loss_config(loss: LossConfig, arm: ArmName, config: EnsembleConfig) -> LossConfig:
    return loss.model_copy(update={"entropy": loss.entropy + config.bonus}) if arm == "entropy_bonus" else loss


def gradient(
    world: Worlds,
    tables: Tables,
    loss: LossConfig,
    logprobs_B_T: Tensor,
    old_B_T: Tensor,
    advantages_B_T: Tensor,
    mask_B_T: Tensor,
    entropies_B_T: Tensor,
) -> list[Tensor]:
    """The gradient of every world's own loss."""

    def one(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, entropies: Tensor) -> Tensor:
        return policy_loss(logprobs, old, advantages, mask, loss, entropies_B_T=entropies).value

    by_world = (
        values.unflatten(0, (world.count, -1))
        for values in (logprobs_B_T, old_B_T, advantages_B_T, mask_B_T, entropies_B_T)
    )
    losses_W = torch.vmap(one)(*by_world)
    return list(torch.autograd.grad(losses_W.sum(), tables.parameters, retain_graph=True))


def compare(world: Worlds, base: Sequence[Tensor], modulated: Sequence[Tensor]) -> dict[str, Tensor]:
    """(W,) cosine of the two gradients and |modulated| / |base|; 1 where the base has none."""
    dot_W = sum((left * right).reshape(world.count, -1).sum(1) for left, right in zip(base, modulated, strict=True))
    base_W, norm_W = norms(world, base), norms(world, modulated)
    there_W = (base_W > 0) & (norm_W > 0)
    one_W = torch.ones_like(base_W)
    return {
        "gradient_cosine": torch.where(there_W, dot_W / (base_W * norm_W).clamp_min(1e-30), one_W),
        "gradient_norm_ratio": torch.where(there_W, norm_W / base_W.clamp_min(1e-30), one_W),
    }


def norms(world: Worlds, values: Sequence[Tensor]) -> Tensor:
    return torch.stack([(part**2).reshape(world.count, -1).sum(1) for part in values]).sum(0).sqrt()


def scaled(world: Worlds, values: Sequence[Tensor], factor_W: Tensor) -> list[Tensor]:
    """Every world's part of the gradient times its own factor."""
    return [(part.view(world.count, -1) * factor_W[:, None]).view_as(part) for part in values]


def state_of(world: Worlds, tables: Tables) -> dict[str, Tensor]:
    entropy_W = world.state_entropy(tables).view(world.count, -1).mean(1)
    return {"success": world.success(tables), "state_entropy": entropy_W}


def diagnose(world: Worlds, tables: Tables, played: Played, step: Step) -> dict[str, Tensor]:
    """(W,) what theory speaks of, with the exact H(s): the correlation of alpha - 1 with S - H(s) and both drifts."""
    spans, modulation = step.modulation.spans, step.modulation
    states_N = played.states_B_R[played.live_B_R]
    surprisal_N = aem.span_means(-step.logprobs_B_T, spans) * spans.lengths_N
    relative_N = surprisal_N - world.state_entropy(tables)[states_N]
    advantages_N = aem.span_means(step.base_B_T, spans)
    entropy_N = aem.span_means(step.entropies_B_T, spans)
    rows = world.config.tasks * world.config.group
    labels_N = spans.rows_N // rows
    counts_W = torch.bincount(labels_N, minlength=world.count).clamp_min(1)

    def mean_W(values_N: Tensor) -> Tensor:
        return torch.zeros(world.count).index_add(0, labels_N, values_N.float()) / counts_W

    negative_N = (advantages_N < 0) * spans.lengths_N
    pairs = [(modulation.alphas_N[labels_N == one] - 1, relative_N[labels_N == one]) for one in range(world.count)]
    return {
        "response_entropy": mean_W(entropy_N),
        "negative_tokens": mean_W(negative_N.float()) / mean_W(spans.lengths_N.float()),
        "alpha_spread": mean_W((modulation.alphas_N - 1) ** 2).sqrt(),
        "correlation": torch.stack([correlation(*pair) for pair in pairs]),
        "drift_base": mean_W(advantages_N * relative_N),
        "drift_added": mean_W(advantages_N * (modulation.alphas_N - 1) * relative_N),
    }


def learning_rate(config: EnsembleConfig) -> float:
    """The base's learning rate: its first step, averaged over worlds, is as long as GRPO's at `learning_rate`."""
    if config.base == "grpo":
        return config.learning_rate
    world = Worlds(config.world, config.seeds, config.first_seed)
    tables = world.start()
    played = world.play(tables, torch.Generator().manual_seed(config.first_seed))
    logprobs_B_T, entropies_B_T, _ = world.score(tables, played)
    lengths = []
    for name in ("grpo", config.base):
        base = base_named(name)
        step = prepare(world, tables, played, base, config.method)
        chosen = logprobs_B_T, step.logprobs_B_T, step.base_B_T, step.trained_B_T, entropies_B_T
        lengths.append(float(norms(world, gradient(world, tables, base.loss, *chosen)).mean()))
    return config.learning_rate * lengths[0] / lengths[1]
