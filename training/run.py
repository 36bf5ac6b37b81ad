"""From a configuration to the trainer that serves it."""

import logging
from pathlib import Path

from aem_harness.aem_checkpoints.card import CARD, read_card
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import write_text
from aem_harness.training.config import Settings, TrlConfig, WarmStartConfig
from aem_harness.training.folder import is_main, refuse
from aem_harness.training.reference import Report
from aem_harness.training.verl_config import VerlConfig
from aem_harness.training.watch import Watcher, refuse_stopped

logger = logging.getLogger(__name__)


def train(
    config: Settings,
    out: Path,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
    watcher: Watcher | None = None,
) -> Path:
    """Run the configured training in the folder `out`; returns the final checkpoint's folder.

    Its card says which share of the weights training has changed.

    `watcher` gets the checkpoint of every step that the section `gate` names, and says whether to go on. Raises
    ConfigError for such a section without one: what is not asked cannot pass.
    """
    checkpoint = _trained(config, out, resume=resume, report=report, watcher=watcher)
    if is_main():
        try:
            _note_change(checkpoint, getattr(config, "start", None))
        except Exception as error:  # the start may be gone by now: that costs the note, not the training
            logger.warning("%s: which share of the weights has changed is not known", checkpoint, exc_info=error)
    return checkpoint


def _trained(config: Settings, out: Path, *, resume: bool, report: Report, watcher: Watcher | None) -> Path:
    from aem_harness.training import reference, warmstart

    if isinstance(config, WarmStartConfig):
        return warmstart.train(config, out, resume=resume, report=report)
    if config.gate and watcher is None:
        raise ConfigError(
            "the section gate has nobody to ask here: train with aem train or aem_harness.api.training.train"
        )
    refuse_stopped(config.gate, out)
    if isinstance(config, TrlConfig):
        from aem_harness.training.engines import trl_run

        return trl_run.train(config, out, resume=resume, report=report, watcher=watcher)
    if isinstance(config, VerlConfig):
        from aem_harness.training.engines import verl_run

        return verl_run.train(config, out, resume=resume, watcher=watcher)
    return reference.train(config, out, resume=resume, report=report, watcher=watcher)


def _note_change(checkpoint: Path, start: str | None) -> None:
    """Write to the card which share of the weights differs from the start's, where both are on this disk."""
    from aem_harness.training.checkpoint import changed_share
    from aem_harness.training.start import policy_or_hub

    folder = Path(policy_or_hub(start)) if start else None
    file = checkpoint / CARD
    if folder is None or not folder.is_dir() or not file.is_file():
        return
    card = read_card(file)
    training = card.training.model_copy(update={"changed": changed_share(checkpoint, folder)})
    write_text(file, card.model_copy(update={"training": training}).to_yaml())


def slow_here(config: Settings) -> str:
    """What makes a training of one CPU needlessly slow on this one; "" if nothing does."""
    if config.kind not in ("warm-start", "rl") or not config.bfloat16:
        return ""
    import torch

    able = torch.cpu.get_capabilities()
    if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("architecture") != "x86_64":
        return ""
    return "this CPU has no bfloat16 arithmetic: a new run is several times faster here with -c bfloat16=false"


def check(config: Settings, out: Path, *, resume: bool = False) -> None:
    """What `train` checks before its first step, for the engines of one machine; raises ConfigError."""
    from aem_harness.training.checkpoint import load_state
    from aem_harness.training.start import policy_folder

    if isinstance(config, TrlConfig):
        from aem_harness.training.engines import trl_run

        trl_run.check(config, out, resume=resume)
        return
    refuse(out, config, (load_state(out) or {}).get("step"), resume=resume)
    if start := getattr(config, "start", None):
        policy_folder(start)
