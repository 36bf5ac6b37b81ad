"""New cards: from a folder of weights, from a training run with its steps, or from another card."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aem_harness.aem_checkpoints.card import CARD, Card, make_card
from aem_harness.aem_checkpoints.weights import identify, setting
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import write_text

OWN = ("name", "path", "hub", "revision", "digests", "weights")


def inherited(card: Card) -> dict[str, Any]:
    """What another checkpoint takes over from this one: everything but its weights and its name."""
    return card.model_dump(mode="json", exclude_defaults=True, exclude=set(OWN))


def cards(name: str, values: Mapping[str, Any], registry: Path) -> Iterator[Card]:
    """The card `name` with these values; for `name@*`, one for each step found under `path`.

    A folder says itself whether it holds full weights or an adapter, and of which base model; its files are digested.
    ConfigError when a folder holds no weights, or a value is wrong.
    """
    path = Path(values["path"]) if values.get("path") else None
    if not name.endswith("@*"):
        yield _card(name, path, values, registry)
        return
    if path is None:
        raise ConfigError(f"{name}: a series is read from a folder; give --path")
    for step, folder in steps_in(path).items():
        training = {**values.get("training", {}), "step": step}
        yield _card(f"{name.removesuffix('*')}{step}", folder, {**values, "training": training}, registry)


def add(card: Card, registry: Path, *, replace: bool = False) -> Path:
    """Write a card into a registry's folder; ConfigError when the name is taken there and `replace` is not given."""
    shipped = registry / card.name / CARD
    file = shipped if shipped.exists() else registry / f"{card.name}.yaml"
    if file.exists() and not replace:
        raise ConfigError(f"{file} is there already: choose another name, or give --replace")
    registry.mkdir(parents=True, exist_ok=True)
    write_text(file, card.to_yaml())
    return file


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of a training run by step: `checkpoint-50` (TRL), `global_step_50/.../huggingface` (verl)."""
    found = {}
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = re.search(r"(\d+)$", child.name)
        places = [child, *sorted(child.glob("**/huggingface"))]
        holding = next((place for place in places if any(place.glob("*.safetensors"))), None)
        if number and holding:
            found[int(number[1])] = holding
    if not found:
        raise ConfigError(f"{folder} holds no checkpoints by step, such as checkpoint-50 or global_step_50/huggingface")
    return dict(sorted(found.items()))


def _card(name: str, folder: Path | None, values: Mapping[str, Any], registry: Path) -> Card:
    own: dict[str, Any] = {"name": name}
    if folder is not None:
        own["digests"] = identify(folder)
        own["path"] = _written(folder.resolve(), registry.resolve() / name if _inside(name, registry) else registry)
        if (folder / "adapter_config.json").is_file():
            own["weights"] = "lora"
            base = setting(folder, "adapter_config.json", "base_model_name_or_path")
            own["base_model"] = values.get("base_model") or str(base or "")
    return make_card({**values, **own}, f"checkpoint {name}")


def _inside(name: str, registry: Path) -> bool:
    return (registry / name / CARD).exists()


def _written(folder: Path, beside: Path) -> str:
    """Relative to the card where the weights lie in the registry, so that both can move; absolute elsewhere."""
    beside = beside.resolve()
    return str(folder.relative_to(beside)) if folder.is_relative_to(beside) else str(folder)
