"""How a modulated gradient differs from its base's: in direction (cosine) and in length (norm ratio).

Modulation mostly shortens the gradient: alpha is below one exactly where a response is uncertain, which is where
log-probabilities have large gradients. A comparison of AEM with its base alone therefore mixes two things, a turned
step and a shorter one. The step-matched control keeps them apart: the base's own gradient, scaled to the length that
AEM's gradient would have on the same batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradient = Sequence[Tensor]  # one tensor a parameter


def gradient_of(loss: Tensor, parameters: Sequence[Tensor]) -> Gradient:
    """d loss / d parameter; the graph stays, so that another loss of the same pass can follow."""
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def compare(base: Gradient, modulated: Gradient) -> dict[str, float]:
    """`gradient_cosine` of the two, and `gradient_norm_ratio`, |modulated| / |base|; both 1 where both are zero."""
    base_norm, norm = _norm(base), _norm(modulated)
    dot = sum((left * right).sum() for left, right in zip(base, modulated, strict=True))
    if float(base_norm) == 0.0 or float(norm) == 0.0:
        same = float(base_norm == norm)
        return {"gradient_cosine": same, "gradient_norm_ratio": same}
    return {
        "gradient_cosine": float(dot / (base_norm * norm)),
        "gradient_norm_ratio": float(norm / base_norm),
    }


def put(parameters: Sequence[Tensor], gradient: Gradient, scale: float = 1.0) -> None:
    """Make `scale * gradient` what the optimizer reads."""
    for parameter, values in zip(parameters, gradient, strict=True):
        parameter.grad = values * scale if scale != 1.0 else values


def _norm(gradient: Gradient) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(values) for values in gradient]))
