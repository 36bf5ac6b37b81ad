"""What a training run is: validated settings from YAML and dotted overrides, and their digest."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from aem_harness.harness.config import read_yaml, set_dotted
from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.types import Record
from aem_harness.training.aem import AemConfig
from aem_harness.training.bases import Base, base_named
from aem_harness.training.model import ModelConfig
from aem_harness.training.verl_config import VerlConfig
from aem_harness.training.watch import GateSettings


class Common(Record, allow_inf_nan=False):
    """`threads` may differ between a run and its continuation; everything else decides the weights."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    seed: int = Field(default=0, ge=0)
    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    evaluate_every: int = Field(default=0, ge=0, description="steps; 0: only at the end")
    evaluate_tasks: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(default=10, gt=0)
    threads: int = Field(default=2, gt=0)
    bfloat16: bool = Field(default=True, description="mixed precision: faster where the CPU multiplies bfloat16")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)

    @property
    def digest(self) -> str:
        canonical = json.dumps(self.model_dump(mode="json", exclude={"threads", "gate", "report_to"}), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class WarmStartConfig(Common):
    """Supervised learning on scripted, imperfect demonstrations of the training tasks."""

    kind: Literal["warm-start"]
    start: str | None = Field(default=None, description="folder of a policy to go on from; none: from nothing")
    model: ModelConfig = ModelConfig()
    muon_learning_rate: float = Field(default=0.02, gt=0, description="of the layers' matrices")
    demonstrations: int = Field(default=10000, gt=0)
    right: float = Field(default=0.6, gt=0, le=1, description="chance that an attempt of the teacher is right")
    tests: float = Field(default=0.8, ge=0, le=1, description="chance that the teacher runs the tests")
    attempts: int = Field(default=2, gt=0)
    batch: int = Field(default=32, gt=0)
    context_loss: float = Field(default=0.3, ge=0, description="weight of predicting the tokens that are not replies")
    warmup: int = Field(default=30, gt=0)
    vocabulary: int = Field(default=640, ge=300)


class RlConfig(Common):
    """Reinforcement learning from a warm start; `aem` left out or null trains the base alone.

    `prompts` tasks are drawn for every step and played `group` times each. `loss` overrides fields of the base's loss.
    """

    kind: Literal["rl"]
    start: str = Field(description="folder of the policy to start from")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="near the gradient's size, noise stays small steps")
    base: str = "grpo"
    loss: Mapping[str, Any] = Field(default_factory=dict)
    aem: AemConfig | None = None
    baseline: Literal["empg", "repo_r"] | None = Field(
        default=None, description="a relative of AEM in its place (training/baselines.py)"
    )
    control: Literal["step_matched"] | None = Field(
        default=None, description="step_matched: follow the base's gradient, at the length of the modulated one"
    )
    diagnose_every: int = Field(
        default=8,
        ge=0,
        description="steps between cosine to the base's gradient, KL to the start and samples; 0: never",
    )
    samples: int = Field(default=2, ge=0, description="rollouts that are written out at these steps")
    prompts: int = Field(default=8, gt=0)
    group: int = Field(default=8, gt=1)
    minibatches: int = Field(default=1, gt=0)
    epochs: int = Field(default=1, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    max_steps: int = Field(default=8, gt=0)
    max_reply: int = Field(default=40, gt=0)
    tasks: int = Field(default=4000, gt=0)
    resampling_rounds: int = Field(default=4, gt=0, description="how often dynamic sampling may draw again")
    gate: GateSettings | None = None

    @model_validator(mode="after")
    def _ratio_can_differ_from_one(self) -> Self:
        ratio = self.loss.get("ratio", base_named(self.base).loss.ratio)
        if ratio == "sequence" and self.epochs * self.minibatches == 1:
            raise ValueError(
                f"with one update a batch every ratio is 1 and {self.base} is its token-wise sibling: "
                "set minibatches or epochs to more"
            )
        return self

    @model_validator(mode="after")
    def _control_has_a_method(self) -> Self:
        if self.baseline and self.aem:
            raise ValueError(f"baseline {self.baseline} takes the place of aem: leave one of them out")
        if self.control and self.aem is None:
            raise ValueError("control: step_matched takes its length from the modulated gradient, so it needs aem")
        return self

    @property
    def resolved_base(self) -> Base:
        base = base_named(self.base)
        merged = {**base.model_dump(), "loss": {**base.loss.model_dump(), **self.loss}}
        return Base.model_validate(merged)


class WarmStart(Record, allow_inf_nan=False):
    """Supervised learning on scripted demonstrations before the first step.

    A language model that does not know the world's commands earns no reward, and equal rewards teach nothing.
    """

    steps: int = Field(gt=0)
    batch: int = Field(default=16, gt=0, description="demonstrations a step")
    learning_rate: float = Field(default=2e-4, gt=0)
    right: float = Field(default=0.6, gt=0, le=1, description="chance that an attempt of the teacher is right")


class TrlConfig(Record, allow_inf_nan=False):
    """The same world learned by TRL's GRPOTrainer, with any causal LM: `aem_harness.training.engines.trl_run`.

    `arguments` are GRPOConfig's own and win over everything here; they also say which base it is (`loss_type`).
    """

    kind: Literal["trl"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    seed: int = Field(default=0, ge=0)
    start: str = Field(description="folder of the policy to start from, or its name on the hub")
    aem: AemConfig | None = None
    steps: int = Field(gt=0)
    prompts: int = Field(default=8, gt=0, description="tasks a step and process")
    group: int = Field(default=8, gt=1)
    learning_rate: float = Field(gt=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    max_steps: int = Field(default=8, gt=0)
    max_reply: int = Field(default=40, gt=0)
    context: int = Field(default=384, gt=0, description="tokens of a whole conversation")
    tasks: int = Field(default=4000, gt=0)
    checkpoint_every: int = Field(default=10, gt=0)
    threads: int = Field(default=2, gt=0)
    lora: Mapping[str, Any] | None = Field(
        default=None, description="PEFT's LoraConfig: train an adapter, not all weights"
    )
    warm_start: WarmStart | None = Field(default=None, description="demonstrations first, into the same weights")
    report_to: tuple[str, ...] = Field(default=("tensorboard",), description="of transformers: also wandb, mlflow")
    gate: GateSettings | None = None
    arguments: Mapping[str, Any] = Field(default_factory=dict)


Settings = WarmStartConfig | RlConfig | TrlConfig | VerlConfig
KINDS = ("warm-start", "rl", "trl", "verl")
TrainConfig = Annotated[Settings, Field(discriminator="kind")]


def load_config(path: Path, overrides: Iterable[str] = ()) -> Settings:
    """The settings in `path` with `a.b=value` overrides; ConfigError names the field that is wrong."""
    merged = read_yaml(path)
    for override in overrides:
        set_dotted(merged, override)
    with validating(ConfigError, str(path), unnamed=KINDS):
        config: Settings = TypeAdapter(TrainConfig).validate_python(merged)
        if isinstance(config, RlConfig):
            _ = config.resolved_base
    return config


def find_config(name: str) -> Path:
    """The path itself, or the shipped configuration of that name."""
    shipped = Path(__file__).parent / "configs"
    if (shipped / f"{name}.yaml").is_file():
        return shipped / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise ConfigError(f"no configuration {name!r}: give a YAML file, or one of {names}")
