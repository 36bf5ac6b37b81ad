"""AEM as a plug-in of verl: found through the entry point `verl.plugins`, loaded in every process that imports verl.

Importing this module registers

- the trainers `aem_sync`, `aem_colocate_async` and `aem_separate_async`: verl's own of those modes, whose advantages,
  by whatever estimator, are modulated before they reach the actor;
- the advantage estimator `aem`, for trainers written by others that can hand entropies to an estimator;
- the agent loop `aem_sandbox` (`aem_harness.training.engines.verl_loop`).

Why trainers: an estimator of verl 0.9.1 is given rewards, mask and prompt ids, but never the entropies that
`_compute_old_log_prob` has just written beside the old log-probabilities. `_compute_advantage` is the one place where
both are at hand. Of verl's own code nothing is replaced.

Axes: B rows of the batch (one a rollout), T response tokens.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import transfer_queue
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from torch import Tensor
from verl.experimental.agent_loop.agent_loop import register
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, register_adv_est
from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSeparateAsync, PPOTrainerSync, register_trainer
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.utils.padding import response_to_nested

from aem_harness.harness.errors import ConfigError
from aem_harness.training.aem import AemConfig, Modulation, modulate
from aem_harness.training.engines.verl_loop import SandboxAgentLoop

FIELDS = ["uid", "response_mask", "entropy", "old_log_probs"]


class WholeGroups(ReplayBuffer):
    """verl's buffer of the mode `sync`, for which a group that lost one rollout to a fault is as lost as if all were.

    verl 0.9.1 evicts and draws again only groups without any rollout; of the others it trains on what is left, whose
    mean is another baseline, and the filter of groups without variance does not see them.
    """

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> Any:
        stale, filtered, failed, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        if self.sync_refill_failed_groups and partition_id != "val":
            failed = failed | self.failure_keys[partition_id]
        return stale, filtered, failed, counts


class ModulatedTrainer(PPOTrainer):
    """What the registered trainers put before verl's. `mode` is the name that verl knows the trainer behind it by."""

    mode: str

    def __init__(self, config: Any) -> None:
        self.aem = method_of(config)
        if self.aem and OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
            raise ConfigError(
                "algorithm.rollout_correction.bypass_mode skips the old policy's pass, which modulation takes its "
                "entropies from: set it to false"
            )
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.mode  # verl compares it with the names of its own trainers
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        if type(buffer) is ReplayBuffer:  # a sampler of the user's own is left alone
            buffer.__class__ = WholeGroups
        return buffer

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        """verl hands a batch to its first workers, one prompt each if it has few: the next batch goes to the next ones.

        Prompts that are drawn again come one at a time (0.9.1), and would all land on the first worker's node.
        """
        submitted: int = super()._submit_batch_to_rollout(batch)
        rotate(self.agent_loop_manager.agent_loop_workers, submitted)
        return submitted

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self.aem is None:
            return super()._compute_advantage(batch, metrics)
        where: dict[str, Any] = {"keys": batch.keys, "partition_id": batch.partition_id}
        # Read before verl's part, whose rollout correction may take tokens out of the mask and so split responses.
        before = transfer_queue.kv_batch_get(**where, select_fields=FIELDS)
        batch = super()._compute_advantage(batch, metrics)
        advantages = transfer_queue.kv_batch_get(**where, select_fields=["advantages"])["advantages"]
        result = modulate_nested(advantages, before, self.aem)
        metrics.update({f"aem/{name}": value for name, value in result.stats.items()})
        nested = response_to_nested(result.advantages_B_T, before["response_mask"])
        return transfer_queue.kv_batch_put(**where, fields=TensorDict({"advantages": nested}, batch_size=len(batch)))


def rotate(workers: list[Any], used: int) -> None:
    """Move the first `used` workers, in place, behind the others."""
    turn = used % len(workers) if workers else 0
    workers[:] = [*workers[turn:], *workers[:turn]]


def method_of(config: Any) -> AemConfig | None:
    """The method's numbers in verl's configuration, at `aem.method`; null there trains the base alone."""
    section = OmegaConf.select(config, "aem") or OmegaConf.create()
    if "method" in section and section.method is None:
        return None
    return AemConfig.model_validate(
        OmegaConf.to_container(OmegaConf.select(config, "aem.method") or OmegaConf.create())
    )


def modulate_nested(advantages: Tensor, batch: Mapping[str, Any], config: AemConfig) -> Modulation:
    """`modulate` on verl's nested tensors; rows that only fill up the batch have no responses, so they do not count."""
    return modulate(
        padded(advantages),
        padded(batch["entropy"]),
        padded(batch["response_mask"]),
        np.asarray([str(uid) for uid in batch["uid"]]),  # an array, or the list that TransferQueue gives
        config,
        logprobs_B_T=padded(batch["old_log_probs"]),
    )


def padded(nested: Tensor) -> Tensor:
    return nested.to_padded_tensor(0) if nested.is_nested else nested


@register_adv_est("aem")
def modulated_advantage(
    *,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Any,
    config: Any = None,
    entropies: Tensor | None = None,
    base: str = "grpo",
    aem: AemConfig | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """(B, T) advantages of the estimator `base`, modulated by (B, T) `entropies`; and the base's returns.

    verl's own trainers hand no entropies to an estimator; under them this raises ConfigError, which says what to do.
    """
    if entropies is None:
        raise ConfigError(
            "the estimator `aem` was given no entropies, and verl's trainers give none: set algorithm.adv_estimator to "
            "the base (grpo, rloo, ...) and trainer.v1.trainer_mode to aem_sync"
        )
    advantages, returns = get_adv_estimator_fn(base)(
        token_level_rewards=token_level_rewards, response_mask=response_mask, index=index, config=config, **others
    )
    return modulate(advantages, entropies, response_mask, np.asarray(index), aem).advantages_B_T, returns


def _register() -> None:
    for mode, trainer in (
        ("sync", PPOTrainerSync),
        ("colocate_async", PPOTrainerColocateAsync),
        ("separate_async", PPOTrainerSeparateAsync),
    ):
        register_trainer(f"aem_{mode}")(type(f"Aem{trainer.__name__}", (ModulatedTrainer, trainer), {"mode": mode}))
    register("aem_sandbox")(SandboxAgentLoop)


_register()
