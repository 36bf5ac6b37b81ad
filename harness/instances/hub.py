"""The Hugging Face hub, asked once whether it answers: its client tries for half a minute where it does not."""

import logging
import os
import sys
import urllib.error
import urllib.request
from typing import Any

SECONDS = 5.0


def unreached() -> str:
    """Why the hub does not answer, on one line; empty where it does. A refusal is an answer, a proxy's 5xx is none."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"{address} answers HTTP {error.code}" if error.code >= 500 or error.code == 407 else ""
    except (OSError, ValueError) as error:
        return f"{address} does not answer: {' '.join(str(getattr(error, 'reason', error)).split())[:100]}"


def rows(name: str, split: str, *, offline: bool) -> Any:
    """The rows of a dataset; `offline` from the copy of an earlier download alone. Raises what the library raises."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported, so it is also set where they were
        for module in ("huggingface_hub.constants", "datasets.config"):
            if module in sys.modules:
                sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    # The client logs two lines for each of five tries; what is wrong is said once, by the caller.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    from datasets import load_dataset

    return load_dataset(name, split=split)
