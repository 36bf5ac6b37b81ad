"""From a configuration to the trainer that serves it."""

from pathlib import Path

from training.config import Settings, TrlConfig, WarmStartConfig
from training.engines.verl_config import VerlConfig
from training.reference import Report


def train(config: Settings, out: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Run the configured training in the folder `out`; returns the final checkpoint's folder."""
    from training import reference, warmstart

    if isinstance(config, WarmStartConfig):
        return warmstart.train(config, out, resume=resume, report=report)
    if isinstance(config, TrlConfig):
        from training.engines import trl_run

        return trl_run.train(config, out, resume=resume, report=report)
    if isinstance(config, VerlConfig):
        from training.engines import verl_run

        return verl_run.train(config, out, resume=resume)
    return reference.train(config, out, resume=resume, report=report)
