"""From a configuration to the trainer that serves it."""

from pathlib import Path

from aem_harness.training.config import Settings, TrlConfig, WarmStartConfig
from aem_harness.training.reference import Report
from aem_harness.training.verl_config import VerlConfig


def train(config: Settings, out: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Run the configured training in the folder `out`; returns the final checkpoint's folder."""
    from aem_harness.training import reference, warmstart

    if isinstance(config, WarmStartConfig):
        return warmstart.train(config, out, resume=resume, report=report)
    if isinstance(config, TrlConfig):
        from aem_harness.training.engines import trl_run

        return trl_run.train(config, out, resume=resume, report=report)
    if isinstance(config, VerlConfig):
        from aem_harness.training.engines import verl_run

        return verl_run.train(config, out, resume=resume)
    return reference.train(config, out, resume=resume, report=report)


def check(config: Settings, out: Path, *, resume: bool = False) -> None:
    """What `train` checks before its first step, for the engines of one machine; raises ConfigError."""
    from aem_harness.training.checkpoint import load_state
    from aem_harness.training.folder import refuse
    from aem_harness.training.start import policy_folder

    if isinstance(config, TrlConfig):
        from aem_harness.training.engines import trl_run

        trl_run.check(config, out, resume=resume)
        return
    refuse(out, config, (load_state(out) or {}).get("step"), resume=resume)
    if start := getattr(config, "start", None):
        policy_folder(start)
