"""The settings of a gate: margin, error rates, question and budget. Tiers are presets."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field

from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.types import Record

Estimand = Literal["rates", "outcomes"]
BudgetUnit = Literal["rollouts", "tokens", "gpu_hours"]

_UNITS: Mapping[str, tuple[BudgetUnit, float]] = {
    "": ("rollouts", 1),
    "r": ("rollouts", 1),
    "tok": ("tokens", 1),
    "ktok": ("tokens", 1e3),
    "mtok": ("tokens", 1e6),
    "gtok": ("tokens", 1e9),
    "gpuh": ("gpu_hours", 1),
}


FUTILITY = 0.27  # share of the initial chance of a verdict; the default


class Budget(Record, allow_inf_nan=False):
    """The most to spend on the candidate (and on the baseline, if it is run too)."""

    amount: float = Field(gt=0)
    unit: BudgetUnit = "rollouts"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`800` or `800r` rollouts, `20Mtok` tokens (prompt and completion), `12gpuh` GPU-hours."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
        if not found or found[2] not in _UNITS or float(found[1]) <= 0:
            raise ConfigError(f"invalid budget {text!r}: write 800 (rollouts), 20Mtok or 12gpuh")
        unit, factor = _UNITS[found[2]]
        return cls(amount=float(found[1]) * factor, unit=unit)

    def __str__(self) -> str:
        words = {"rollouts": "rollouts", "tokens": "tokens", "gpu_hours": "GPU-hours"}
        return f"{self.amount:,.10g} {words[self.unit]}"


class GateConfig(Record):
    """One gate. Margins and rates are fractions (0.03 is 3 points)."""

    margin: float = Field(0.03, gt=0, lt=1, description="PASS: the drop is smaller than this")
    block_margin: float | None = Field(None, ge=0, lt=1, description="BLOCK: the drop is larger (None: the margin)")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="probability of a false PASS, at most")
    block_alpha: float | None = Field(None, gt=0, lt=0.5, description="of a false BLOCK (None: alpha)")
    question: Estimand = Field("rates", description="true resolve rates, or the full table of outcomes")
    seed: int = Field(0, ge=0, description="of the order")
    budget: Budget | None = None
    retries: int = Field(
        1, ge=0, description="how often a rollout lost to infrastructure may be repeated, in both arms"
    )
    sequential: bool = Field(True, description="look after every rollout; otherwise once, at the end")
    futility: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="stop when the chance of a verdict falls below this share of its initial value (None: FUTILITY)",
    )
    orders: int = Field(1, ge=1, le=100, description="orders in which this candidate may be gated; they share alpha")
    launch_sd: float = Field(
        0.0, ge=0, lt=0.5, description="standard deviation of an arm's rate between launches, if known"
    )

    @property
    def blocks_beyond(self) -> float:
        return self.margin if self.block_margin is None else self.block_margin

    @property
    def alphas(self) -> tuple[float, float]:
        """For PASS and for BLOCK."""
        block_alpha = self.alpha if self.block_alpha is None else self.block_alpha
        return self.alpha / self.orders, block_alpha / self.orders

    @property
    def gives_up_below(self) -> float:
        """`futility`, or its default."""
        return FUTILITY if self.futility is None else self.futility

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# smoke: minutes, finds broken checkpoints. nightly: decides early. release: runs everything, one look, smaller errors.
TIERS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"margin": 0.10, "budget": Budget(amount=200), "futility": 0.0},
    "nightly": {},
    "release": {"alpha": 0.025, "sequential": False, "futility": 0.0},
}


def configure(tier: str = "nightly", **values: Any) -> GateConfig:
    """A tier with the given values (None: not given) over it. Raises ConfigError with the invalid setting."""
    if tier not in TIERS:
        raise ConfigError(f"no tier {tier!r}; choose {', '.join(TIERS)}")
    given = {name: value for name, value in values.items() if value is not None}
    with validating(ConfigError, "gate settings"):
        return GateConfig(**{**TIERS[tier], **given})
