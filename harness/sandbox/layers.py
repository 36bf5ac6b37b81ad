"""What images take on the disk: layers that several share count once."""

from typing import Any

from aem_harness.harness.errors import EnvironmentFault, boundary
from aem_harness.harness.sandbox.engine import client

Layers = dict[str, int]  # bytes by layer; a layer is named by all that lie below it


def layers_of(image: Any) -> Layers:
    """The layers of an image of the engine, with their unpacked sizes in bytes; their sum is the image's size.

    The engine tells the layers' names and, in the history, the sizes of all steps, also of those that made none. Where
    empty layers leave the match in doubt, they are taken to be the uppermost: the sum stays right.
    """
    with boundary(EnvironmentFault, f"cannot read the layers of {image.id}"):
        names = (image.attrs.get("RootFS") or {}).get("Layers") or []
        sizes = [step["Size"] for step in reversed(client().api.history(image.id)) if step["Size"]][: len(names)]
    sizes += [0] * (len(names) - len(sizes))
    found: Layers = {}
    below = ""
    for name, size in zip(names, sizes, strict=True):
        below = f"{below}/{name[-16:]}"
        found[below] = size
    return found
