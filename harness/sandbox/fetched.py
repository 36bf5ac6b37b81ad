"""The images that runs of this user have fetched, and may remove again: a list in the cache folder, with their ids."""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aem_harness.harness.io import cache_folder, write_json

_lock = threading.Lock()


def note(name: str, image_id: str) -> None:
    """A run fetched this image. That the list cannot be written only means that the image stays."""
    with _lock, suppress(OSError):
        write_json(_path(), {**_read(), name: image_id})


def forget(*names: str) -> None:
    """These are no longer runs' own: removed, or asked for by a person."""
    with _lock, suppress(OSError):
        known = _read()
        if any(name in known for name in names):
            write_json(_path(), {name: image for name, image in known.items() if name not in names})


def is_ours(name: str, image_id: str) -> bool:
    """Did a run fetch this image, and is it still the same?"""
    return _read().get(name) == image_id


def _path() -> Path:
    return cache_folder() / "fetched-images.json"


def _read() -> Mapping[str, str]:
    try:
        found: Mapping[str, str] = json.loads(_path().read_text())
        return found
    except (OSError, ValueError):
        return {}
