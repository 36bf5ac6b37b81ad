"""The named bases that entropy modulation is compared on and plugs into: advantage, loss, and treatment of rollouts.

A base is a record; `advantages` and `loss.policy_loss` interpret it. What the paper or the release says:

- grpo       arXiv 2402.03300: group mean and std, symmetric clip 0.2, mean per rollout.
- grpo_entropy_bonus  the same with a token-level entropy bonus, the standard alternative to AEM.
- dapo       arXiv 2503.14476: clip-higher 0.2/0.28, dynamic sampling, token mean, soft overlong punishment, no KL.
- gspo       arXiv 2507.18071: sequence ratio in its token form, clip 3e-4/4e-4.
- grpo++     DeepSWE, July 2025: leave-one-out, no std, clip-higher, constant length norm, compact filtering (loss of
             rollouts that hit a limit is masked; they stay in the baseline with reward 0, as in the release's code, and
             in the mean), no KL, no entropy loss.

The constant of grpo++ is a unit of length: the release divides by the longest response it allows. Under Adam only its
size against epsilon matters; here it is such that a step in the bug-fix world is about as long as GRPO's.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import Record
from aem_harness.training import advantages
from aem_harness.training.loss import LossConfig


class Base(Record):
    """`dynamic_sampling`: drop groups without reward variance and sample more. `compact_filtering`: mask the loss of
    rollouts that ended at a limit, and count their reward as 0. `overlong_cache`: tokens before the context's end in
    which the soft punishment grows."""

    advantage: Literal["group_normalised", "leave_one_out"] = "group_normalised"
    loss: LossConfig = LossConfig()
    dynamic_sampling: bool = False
    compact_filtering: bool = False
    overlong_cache: int | None = None


BASES: Mapping[str, Base] = MappingProxyType(
    {
        "grpo": Base(),
        "grpo_entropy_bonus": Base(loss=LossConfig(entropy=0.01)),
        "dapo": Base(loss=LossConfig(clip_high=0.28, mean="token"), dynamic_sampling=True, overlong_cache=64),
        "gspo": Base(loss=LossConfig(ratio="sequence", clip_low=3e-4, clip_high=4e-4)),
        "grpo++": Base(
            advantage="leave_one_out",
            loss=LossConfig(clip_high=0.28, mean="constant", length_norm=32),
            compact_filtering=True,
        ),
    }
)


def base_named(name: str) -> Base:
    try:
        return BASES[name]
    except KeyError:
        raise ConfigError(f"unknown base {name!r}: choose one of {', '.join(BASES)}") from None


def base_advantages(base: Base, rewards_B: Tensor, group_ids_B: Tensor) -> Tensor:
    """(B,) the advantages of this base, before any modulation."""
    return getattr(advantages, base.advantage)(rewards_B, group_ids_B)
