"""The policy that a training starts from: a folder, the name of a registered checkpoint, or an id of the hub."""

import re
from pathlib import Path

from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.harness.errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def policy_folder(start: str) -> Path:
    """The folder with the weights of `start`; ConfigError, with what to do, where there are none."""
    folder = Path(start)
    if not folder.is_dir():
        entries = {entry.card.name: entry for entry in Registry().entries()}
        if start not in entries:
            known = ", ".join(sorted(entries))
            raise ConfigError(
                f"no checkpoint at {start}: start is a folder (of a run: .../checkpoint) or a registered checkpoint "
                f"({known})"
            )
        found = entries[start].folder
        if found is None:
            raise ConfigError(f"{start} is a checkpoint of the hub: download it, and let start be its folder")
        folder = found
    if problem := folder_problem(folder):
        raise ConfigError(problem)
    return folder


def policy_or_hub(start: str) -> str:
    """The same, for engines that can also fetch an id of the hub."""
    if not Path(start).is_dir() and HUB_ID.fullmatch(start) and not start.startswith("."):
        return start
    return str(policy_folder(start))


def folder_problem(folder: Path) -> str:
    """Why no policy can be loaded from a folder; empty where one can."""
    if any(folder.glob("*.safetensors")):
        return "" if (folder / "config.json").is_file() else f"no checkpoint at {folder}: it has no config.json"
    if any(folder.glob("*.gguf")):
        return f"{folder} holds a GGUF file only: aem checkpoints add NAME --gguf FILE makes a checkpoint of it"
    if (folder / "config.json").is_file():
        return f"no checkpoint at {folder}: it has no .safetensors file"
    return f"no checkpoint at {folder}: it has no config.json"
