"""The images that runs of this user have fetched, and may remove again: a list in the cache folder, with their ids.

What a run has fetched at one engine may be a person's own at another: entries for other engines than the local socket
begin with the engine's address.
"""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from aem_harness.harness.io import cache_folder, write_json
from aem_harness.harness.sandbox.engine import current

_lock = threading.Lock()


def note(name: str, image_id: str) -> None:
    """A run fetched this image. That the list cannot be written only means that the image stays."""
    with _lock, suppress(OSError):
        write_json(_path(), {**_read(), key(name): image_id})


def forget(*names: str) -> None:
    """These are no longer runs' own: removed, or asked for by a person."""
    with _lock, suppress(OSError):
        known, those = _read(), {key(name) for name in names}
        if those & set(known):
            write_json(_path(), {one: image for one, image in known.items() if one not in those})


def is_ours(name: str, image_id: str) -> bool:
    """Did a run fetch this image, and is it still the same?"""
    return _read().get(key(name)) == image_id


def key(name: str) -> str:
    """An image of the engine that this thread works with, told from the same one of every other engine."""
    engine = current().address or os.environ.get("DOCKER_HOST", "")
    return f"{engine} {name}" if engine else name


def _path() -> Path:
    return cache_folder() / "fetched-images.json"


def _read() -> Mapping[str, str]:
    try:
        found: Mapping[str, str] = json.loads(_path().read_text())
        return found
    except (OSError, ValueError):
        return {}
