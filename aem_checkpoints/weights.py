"""Weights on disk: their digests, and whether they are still those of their card."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.io import cache_folder, read_json, write_json

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json")
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
BLOCK = 1 << 22


def identify(folder: Path) -> dict[str, str]:
    """Digest of every file that decides what the policy says. ConfigError when the folder holds no checkpoint."""
    if not folder.is_dir():
        raise ConfigError(f"no checkpoint at {folder}: the folder does not exist")
    files = sorted({path for pattern in (*WEIGHT_FILES, *TEXT_FILES) for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ConfigError(f"no checkpoint at {folder}: it has no .safetensors file")
    for path in files:
        if path.suffix == ".safetensors" and (why := header_problem(path)):
            raise ConfigError(f"{path} is damaged: {why}")
    if two := two_saves(folder):
        raise ConfigError(two)
    return {path.name: content_digest(path) for path in files}


def problems(name: str, folder: Path, digests: Mapping[str, str]) -> list[str]:
    """One clear line for every file of the checkpoint `name` that is missing, damaged, or not the digest's."""
    wrong = []
    for file, wanted in digests.items():
        path = folder / file
        if not path.is_file():
            wrong.append(f"{name}: {path} is missing")
        elif path.suffix == ".safetensors" and (why := header_problem(path)):
            wrong.append(f"{name}: {path} is damaged: {why}")
        elif content_digest(path) != wanted:
            wrong.append(f"{name}: {path} has changed since it was registered ({wanted[:19]}... then)")
    if two := two_saves(folder):
        wrong.append(f"{name}: {two}")
    if not digests:
        wrong.append(f"{name}: its card has no digests; register it again with aem checkpoints add --replace")
    return wrong


def two_saves(folder: Path) -> str:
    """What is wrong with a folder that holds one save in a single file and another in shards; empty where it is one.

    Both are whole, so nobody complains, and each program takes the one it looks for first
    (findings/transformers-reads-back-an-earlier-save.sh).
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not (single.is_file() and index.is_file()) or single.name in index.read_text(errors="replace"):
        return ""
    return (
        f"{folder} holds two saves: transformers reads {single.name}, vLLM the shards of {index.name}; remove the "
        "files of the older one"
    )


def header_problem(path: Path) -> str:
    """What is wrong with a safetensors file by its header alone; empty when header and size agree.

    The format: 8 bytes little-endian length, that much JSON, then the tensors that the JSON's offsets describe.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return "shorter than its header"
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            return "its header is cut off"
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return "its header is not that of a safetensors file"
    return "" if expected == size else f"{size} bytes, its header promises {expected}"


def content_digest(path: Path) -> str:
    """`sha256:...` of a file, cached by path, size and modification time: weights are large and rarely change."""
    stat = path.stat()
    cache = cache_folder("digests")
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    known = cache / f"{key[:32]}.json"
    try:
        digest: str = json.loads(known.read_text())["digest"]
        return digest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                hasher.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    digest = f"sha256:{hasher.hexdigest()}"
    write_json(known, {"file": str(path.resolve()), "digest": digest})
    return digest


def setting(folder: Path | None, file: str, key: str) -> object:
    """One value of a checkpoint's JSON file (`config.json`, `adapter_config.json`); None where there is none."""
    path = folder / file if folder else None
    return read_json(path).get(key) if path and path.is_file() else None
