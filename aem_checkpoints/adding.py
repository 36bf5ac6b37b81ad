"""New cards: from a folder of weights, from a training run with its steps, with what another card lends.

A folder that `aem train` wrote has a card of its own, and a run's folder one for all of its checkpoints: method,
training, parent, scaffold and sampling come from there. Another checkpoint's card lends how a policy is served and
driven, never where it came from.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aem_harness.aem_checkpoints.card import CARD, Card, make_card, read_card
from aem_harness.aem_checkpoints.weights import content_digest, identify, setting
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import write_text

OWN = ("name", "path", "hub", "revision", "digests", "weights")
RUN_SETTINGS = "config.json"  # what the folder of a training run has beside its card
STEP = re.compile(r"^(?:checkpoint-|global_step_)(\d+)$")
LENT = ("serving", "scaffold", "sampling", "licence", "base_model")
LEVELS = 5  # of folders above a checkpoint in which the card of its run is looked for


def lent(card: Card) -> dict[str, Any]:
    """What another checkpoint takes over from this one: how it is served and driven, and its licence."""
    return card.model_dump(mode="json", exclude_defaults=True, include=set(LENT))


def cards(
    name: str, values: Mapping[str, Any], registry: Path, lent: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Card]:
    """The card `name` with these values; for `name@*`, one for each step found under `path`.

    What `values` do not say is the folder's own card's to say, and then `lent`'s. A folder says itself whether it holds
    full weights or an adapter, and of which base model; its files are digested. ConfigError when a folder holds no
    weights, its card speaks of other weights, or a value is wrong.
    """
    path = Path(values["path"]) if values.get("path") else None
    if not name.endswith("@*"):
        yield _card(name, path, values, registry, lent)
        return
    if path is None:
        raise ConfigError(f"{name}: a series is read from a folder; give --path")
    for step, folder in steps_in(path).items():
        training = {**values.get("training", {}), "step": step}
        yield _card(f"{name.removesuffix('*')}{step}", folder, {**values, "training": training}, registry, lent)


def own_card(folder: Path) -> dict[str, Any]:
    """What the card of a folder of weights says of its making, else the card of the training run that it lies in; empty
    where there is neither. ConfigError when the folder's card was written for other weights."""
    if (folder / CARD).is_file():
        card = read_card(folder / CARD)
        for file, wanted in card.digests.items():
            if file.endswith(".safetensors") and (folder / file).is_file() and content_digest(folder / file) != wanted:
                raise ConfigError(
                    f"{folder / CARD} was written for other weights than {file} is now: remove it, and say method and "
                    "parent yourself"
                )
        return _told(card, folder)
    for above in folder.resolve().parents[:LEVELS]:
        if (above / CARD).is_file() and (above / RUN_SETTINGS).is_file() and not any(above.glob("*.safetensors")):
            known = _told(read_card(above / CARD), above)
            step = next((match[1] for part in folder.resolve().parts[::-1] if (match := STEP.search(part))), None)
            return {**known, "training": {**known.get("training", {}), "step": step and int(step)}}
    return {}


def _told(card: Card, folder: Path) -> dict[str, Any]:
    """A card's values without what belongs to its own place; a chat template beside it is named in full."""
    values = card.model_dump(mode="json", exclude_defaults=True, exclude=set(OWN))
    if card.serving.chat_template:
        template = str((folder / card.serving.chat_template).resolve())
        values["serving"] = {**values["serving"], "chat_template": template}
    return values


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values over others, section by section."""
    both = {**below, **above}
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping):
            both[key] = _merged(below[key], value)
    return both


def add(card: Card, registry: Path, *, replace: bool = False) -> Path:
    """Write a card into a registry's folder; ConfigError when the name is taken there and `replace` is not given."""
    shipped = registry / card.name / CARD
    file = shipped if shipped.exists() else registry / f"{card.name}.yaml"
    if file.exists() and not replace:
        raise ConfigError(f"{file} exists: choose another name, or give --replace")
    registry.mkdir(parents=True, exist_ok=True)
    write_text(file, card.to_yaml())
    return file


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of a training run by step: `checkpoint-50` (TRL), `global_step_50/.../huggingface` (verl)."""
    by_step = {}
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = re.search(r"(\d+)$", child.name)
        places = [child, *sorted(child.glob("**/huggingface"))]
        holding = next((place for place in places if any(place.glob("*.safetensors"))), None)
        if number and holding:
            by_step[int(number[1])] = holding
    if not by_step:
        raise ConfigError(f"{folder} holds no checkpoints by step, such as checkpoint-50 or global_step_50/huggingface")
    return dict(sorted(by_step.items()))


def _card(name: str, folder: Path | None, values: Mapping[str, Any], registry: Path, lent: Mapping[str, Any]) -> Card:
    own: dict[str, Any] = {"name": name}
    if folder is not None:
        values = _merged({**lent, **own_card(folder)}, values)
        own["digests"] = identify(folder)
        own["path"] = _written(folder.resolve(), registry.resolve() / name if _inside(name, registry) else registry)
        if (folder / "adapter_config.json").is_file():
            own["weights"] = "lora"
            base = setting(folder, "adapter_config.json", "base_model_name_or_path")
            own["base_model"] = values.get("base_model") or str(base or "")
    else:
        values = _merged(lent, values)
    return make_card({**values, **own}, f"checkpoint {name}")


def _inside(name: str, registry: Path) -> bool:
    return (registry / name / CARD).exists()


def _written(folder: Path, beside: Path) -> str:
    """Relative to the card where the weights lie in the registry, so that both can move; absolute elsewhere."""
    beside = beside.resolve()
    return str(folder.relative_to(beside)) if folder.is_relative_to(beside) else str(folder)
