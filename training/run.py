"""From a configuration to the trainer that serves it."""

from pathlib import Path

from training.config import RlConfig, WarmStartConfig
from training.reference import Report


def train(
    config: WarmStartConfig | RlConfig, out: Path, *, resume: bool = False, report: Report = lambda _: None
) -> Path:
    """Run the configured training in the folder `out`; returns the final checkpoint's folder."""
    from training import reference, warmstart

    if isinstance(config, WarmStartConfig):
        return warmstart.train(config, out, resume=resume, report=report)
    return reference.train(config, out, resume=resume, report=report)
