"""AEM in TRL: a `GRPOTrainer` whose advantages are modulated per response, for any loss type and dataset it takes.

TRL computes one advantage per completion in `_generate_and_score_completions` and documents, in `_compute_loss`, that
a subclass may return one per token instead. This one does. What a completion's responses are is known from
`completion_mask * tool_mask` (1 on the policy's tokens, 0 on what tools or environment said), whether the turns came
from `tools`, an `environment_factory`, or a `rollout_func` that returns `env_mask`. Completions that
`mask_truncated_completions` masks have no responses, so they stay out of minimum, maximum and mean.

TRL divides logits by the sampling temperature before it takes entropies. They cost one forward pass without gradient,
or none where TRL computes old log-probabilities anyway (vLLM, several updates a batch). Written against TRL 1.16.0;
another version that lacks one of the hooks below is refused.

Axes: B completions of this process, T completion tokens; G completions of all processes, rank-major, `num_generations`
consecutive ones to a prompt (a group may straddle two processes, hence the gathering).
"""

import inspect
from typing import Any

import torch
import trl
from torch import Tensor

from aem_harness.harness.errors import ConfigError
from aem_harness.training.aem import AemConfig, modulate, of_states
from aem_harness.training.diagnostics import shared_states

HOOKS = {
    "_generate_and_score_completions": ("inputs",),
    "_get_per_token_logps_and_entropies": (
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
    ),
    "_compute_loss": ("model", "inputs"),
}
FIELDS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
# What a batch may hold for multi-modal models, under the names that scoring takes them by.
FORWARDED = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


def missing_hooks(trainer: type = trl.GRPOTrainer) -> list[str]:
    """What this trainer class lacks of what AEM hooks into; empty when it fits."""
    missing = []
    for name, parameters in HOOKS.items():
        method = getattr(trainer, name, None)
        known = inspect.signature(method).parameters if method is not None else {}
        if method is None:
            missing.append(f"GRPOTrainer.{name}")
        missing += [f"parameter {p} of GRPOTrainer.{name}" for p in parameters if method and p not in known]
    if not missing and "advantages.dim() == 1" not in inspect.getsource(trainer._compute_loss):  # type: ignore[attr-defined]
        missing.append("per-token advantages in GRPOTrainer._compute_loss")
    return missing


def check_trl() -> None:
    """Raise ConfigError, naming what is missing, unless the installed TRL has every hook."""
    if missing := missing_hooks():
        raise ConfigError(f"TRL {trl.__version__} does not fit: no {', no '.join(missing)}; install trl==1.16.0")


class AemGRPOTrainer(trl.GRPOTrainer):
    """`trl.GRPOTrainer` with one more argument, `aem`; None trains the base alone, as TRL does.

    Statistics are logged as `aem/...`, over all processes. Evaluation reports the base's loss, unmodulated.
    """

    def __init__(self, *args: Any, aem: AemConfig | None = None, **kwargs: Any) -> None:
        check_trl()
        self.aem = aem
        self._scored: list[tuple[Tensor, Tensor]] = []
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._scored.clear()
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.aem is not None and self.model.training:
            batch["advantages"] = self._modulated(batch)
        self._scored.clear()
        return batch

    def _get_per_token_logps_and_entropies(
        self, model: Any, *args: Any, compute_entropy: bool = False, **kwargs: Any
    ) -> Any:
        """TRL's, keeping the entropies of the old policy's pass, which TRL would not compute there."""
        old = self.aem is not None and not torch.is_grad_enabled() and model is self.model and model.training
        scored = super()._get_per_token_logps_and_entropies(
            model, *args, compute_entropy=compute_entropy or old, **kwargs
        )
        if old:
            self._scored.append((scored[0], scored[1]))
        return scored

    def _modulated(self, batch: dict[str, Any]) -> Tensor:
        """(B, T) the advantages, times the alpha of the response that each token belongs to."""
        if absent := [field for field in FIELDS if field not in batch]:
            raise ConfigError(f"TRL {trl.__version__} returns no {', '.join(absent)}; install trl==1.16.0")
        mask_B_T = batch["completion_mask"]
        if "tool_mask" in batch:
            mask_B_T = mask_B_T * batch["tool_mask"]
        logprobs_B_T, entropies_B_T = self._old_policy(batch)
        rows, width = mask_B_T.shape
        mask_G_T, logprobs_G_T, entropies_G_T = (self._gathered(t) for t in (mask_B_T, logprobs_B_T, entropies_B_T))
        advantages_G = self.accelerator.gather(batch["advantages"])
        groups_G = torch.arange(len(mask_G_T), device=mask_G_T.device) // self.num_generations
        modulation = modulate(advantages_G, entropies_G_T, mask_G_T, groups_G, self.aem, logprobs_B_T=logprobs_G_T)
        # A prompt's number and what followed it is all that a response was given.
        given_G_T = torch.cat([groups_G[:, None], self._gathered(batch["completion_ids"])], dim=1)
        states_N = shared_states(given_G_T, modulation.spans, before=1)
        known = of_states(modulation, logprobs_G_T, advantages_G, states_N)
        for name, value in {**modulation.stats, **known}.items():
            self._metrics["train"][f"aem/{name}"].append(value)
        first = self.accelerator.process_index * rows
        return modulation.advantages_B_T[first : first + rows, :width]

    def _old_policy(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(B, T) log-probabilities and entropies: those that TRL computed for its ratio, or of a pass of our own."""
        for logprobs_B_T, entropies_B_T in self._scored:
            if logprobs_B_T is batch.get("old_per_token_logps"):
                return logprobs_B_T, entropies_B_T
        with torch.no_grad():
            logprobs_B_T, entropies_B_T, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=True,
                **{name: batch[name] for name in FORWARDED if name in batch},
            )
        return logprobs_B_T, entropies_B_T

    def _gathered(self, local_B_T: Tensor) -> Tensor:
        """(G, T) of all processes, which pad to different widths."""
        padded: Tensor = self.accelerator.gather(self.accelerator.pad_across_processes(local_B_T, dim=1))
        return padded
