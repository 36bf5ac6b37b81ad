"""Which program serves, its command line for given checkpoints, and what its complaints mean.

That is `vllm serve`; where vLLM is not installed, the small server of `fallback` takes the same words.

One server holds one full checkpoint and any number of LoRA adapters on it. Three defaults differ from vLLM's own. The
sampling of a model's generation_config.json is not taken over silently (`--generation-config vllm`): it may differ
between two checkpoints and then looks like a gain. And on the CPU build prompts are not prefilled in chunks: a seeded
request whose prompt is cut ends that build's engine (0.32.0: "CPU Generator does not use offset"). That build also
answers for the base model with the adapter of the last slot on top (0.32.0: slot -1 means none, and is taken for the
last), so there it gets one slot more than there are adapters, which stays empty.
"""

import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aem_harness.aem_checkpoints.registry import Entry, Registry
from aem_harness.aem_checkpoints.weights import setting
from aem_harness.harness.errors import ConfigError

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
ServerOptions = Mapping[str, str | int | float | bool]

_KILLED = "killed from outside: by the kernel, for lack of memory, or by a person"
# What a dying server says, and what its user can do about it.
_REMEDIES = (
    (
        r"No available memory for the cache blocks|larger than the (available|maximum number of tokens).*KV cache"
        r"|than the available KV cache memory",
        "not enough memory for the context: lower serving.max_model_len, or raise the flag gpu-memory-utilization",
    ),
    (
        r"out of memory|OutOfMemoryError|Free memory on device",
        "out of memory: lower serving.max_model_len or gpu-memory-utilization, or raise serving.tensor_parallel_size",
    ),
    (r"is greater than the derived max_model_len", "serving.max_model_len is more than the model's own context"),
    (
        r"not a valid model identifier|Repository ?Not ?Found|does not appear to have a file named|couldn't connect to"
        r"|Invalid repository ID",
        "the model cannot be loaded: check path, hub and revision of its card, and the network",
    ),
    (r"[Aa]ddress already in use", "the port is taken: choose another with --port"),
    (r"No space left on device", "the disk is full"),
    (r"unrecognized arguments: .*", "this vLLM does not know a flag of the card's serving.flags"),
    (r"invalid tool call parser", "this vLLM does not know the card's serving.tool_call_parser"),
    (r"server ended with exit status 137", _KILLED),
)
_ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception)): (.+)")
_UNSAYING = ("EngineDeadError", "Engine core initialization failed")


@dataclass(frozen=True)
class Program:
    """What serves: `words` come before the arguments. `cpu`: a build of vLLM for machines without a GPU.

    `timed`: it can say of each reply how long the request queued.
    """

    name: str
    words: tuple[str, ...]
    cpu: bool = False
    timed: bool = False


def find_program() -> Program:
    """vLLM (see `find_vllm`), else the fallback server; $AEM_SERVER, vllm or transformers, leaves no choice.

    ConfigError when the one that is wanted is not installed.
    """
    wanted = os.environ.get("AEM_SERVER", "")
    if wanted not in ("", "vllm", "transformers"):
        raise ConfigError(f"$AEM_SERVER is {wanted!r}: set it to vllm or transformers, or unset it")
    if wanted != "transformers":
        try:
            vllm = find_vllm()
            return Program("vLLM", (vllm, "serve"), is_cpu_build(vllm), _knows(vllm, "enable_per_request_metrics"))
        except ConfigError:
            if wanted == "vllm" or os.environ.get("AEM_VLLM"):
                raise
    if find_spec("transformers") and find_spec("torch"):
        return Program("transformers", (sys.executable, "-P", "-m", "aem_harness.aem_checkpoints.fallback", "serve"))
    raise ConfigError(
        "nothing here can serve a checkpoint: install vLLM (pip install 'aem-harness[vllm]' on a GPU machine, else "
        "make vllm) or, for small checkpoints, pip install 'aem-harness[train]'"
    )


def find_vllm() -> str:
    """The `vllm` to use: $AEM_VLLM, the one beside this Python, on PATH, or in ./.venv-vllm; else ConfigError.

    $AEM_VLLM is the program or the folder of its environment, and leaves no choice.
    """
    if named := os.environ.get("AEM_VLLM"):
        for program in (Path(named), Path(named) / "bin" / "vllm"):
            if program.is_file():
                return str(program)
        raise ConfigError(f"$AEM_VLLM is {named!r}, where no vllm is: name the program or its environment's folder")
    beside = Path(sys.executable).parent / "vllm"
    for candidate in (beside, shutil.which("vllm"), Path(".venv-vllm/bin/vllm")):
        if candidate and Path(candidate).is_file():
            return str(candidate)
    raise ConfigError("vLLM is not installed: pip install 'aem-harness[vllm]' on a GPU machine, else make vllm")


def is_cpu_build(vllm: str) -> bool:
    """Whether this `vllm` command belongs to a build for machines without a GPU."""
    return any("cpu" in package.name for package in _packages(vllm).glob("vllm*.dist-info"))


def _knows(vllm: str, option: str) -> bool:
    """Whether this vLLM has an option; read from its source, as asking it takes many seconds."""
    sources = _packages(vllm).glob("vllm/entrypoints/**/cli_args.py")
    return any(f"{option}:" in source.read_text() for source in sources)


def _packages(vllm: str) -> Path:
    return next(Path(vllm).parent.parent.glob("lib/python3*/site-packages"), Path("nowhere"))


def together(entries: Sequence[Entry], registry: Registry) -> list[list[Entry]]:
    """The entries as groups that one server each can hold: adapters with their base model, full checkpoints alone."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        base = registry.base(entry)
        key = (base or entry).location if base or entry.card.weights == "full" else entry.card.base_model
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def arguments(entries: Sequence[Entry], registry: Registry, program: Program) -> list[str]:
    """Everything after `vllm serve` but host and port. ConfigError when one server cannot hold these checkpoints."""
    if len(together(entries, registry)) > 1:
        names = ", ".join(entry.card.name for entry in entries)
        raise ConfigError(
            f"one server holds one full checkpoint and LoRA adapters on it; {names} need a server each (aem serve)"
        )
    adapters = [entry for entry in entries if entry.card.weights == "lora"]
    full = next((entry for entry in entries if entry.card.weights == "full"), None)
    base = full or registry.base(adapters[0])
    words = [base.location if base else adapters[0].card.base_model]
    if full:
        words += ["--served-model-name", full.card.name]
    if base and base.card.revision:
        words += ["--revision", base.card.revision]
    if adapters:
        slots = len(adapters) + program.cpu
        words += ["--enable-lora", "--max-loras", str(slots), "--max-lora-rank", str(_rank(adapters))]
        words += ["--lora-modules", *(f"{entry.card.name}={entry.location}" for entry in adapters)]
    if template := chat_template(entries[0], registry):
        words += ["--chat-template", str(template)]
    for name, value in options(entries[0], registry, program).items():
        if isinstance(value, bool):
            words += [f"--{name}" if value else f"--no-{name}"]
        else:
            words += [f"--{name}", str(value)]
    return words


def options(entry: Entry, registry: Registry, program: Program | None = None) -> ServerOptions:
    """What vLLM is told beside the weights and their template; an adapter's card over its base model's.

    What depends on the build (`program`) changes no answer and is left out without one.
    """
    base = registry.base(entry)
    flags: dict[str, str | int | float | bool] = {"generation-config": "vllm"}
    if program and program.cpu:
        flags["enable-chunked-prefill"] = False
    for card in ([base.card] if base else []) + [entry.card]:
        for name in ("max_model_len", "tensor_parallel_size", "dtype"):
            if (value := getattr(card.serving, name)) is not None:
                flags[name.replace("_", "-")] = value
        if card.serving.tool_call_parser:
            flags |= {"enable-auto-tool-choice": True, "tool-call-parser": card.serving.tool_call_parser}
        flags |= card.serving.flags
    if program and program.timed and not flags.get("disable-log-stats"):
        flags.setdefault("enable-per-request-metrics", True)
    return flags


def gpus(entry: Entry, registry: Registry, program: Program | None = None) -> int | None:
    """How many GPUs a server of this checkpoint works with; None where that is not known, or it has none.

    Of one that `program` serves: the product of vLLM's sizes of parallelism, each 1 unless the card says otherwise. Of
    one that runs elsewhere (no `program`) it is known only where the card gives `serving.tensor_parallel_size`. The
    fallback server and vLLM's CPU build count as none.
    """
    said = options(entry, registry)
    if (program.cpu or program.name != "vLLM") if program else "tensor-parallel-size" not in said:
        return None
    return math.prod(int(said.get(f"{kind}-parallel-size", 1)) for kind in ("tensor", "pipeline", "data"))


def chat_template(entry: Entry, registry: Registry) -> Path | None:
    """The template file that a card, else its base model's card, puts in place of the tokenizer's own."""
    for own in (entry, registry.base(entry)):
        if own and own.card.serving.chat_template:
            return (own.file.parent / own.card.serving.chat_template).resolve()
    return None


def explain(log: str) -> str:
    """Why a server ended, from its log: a known cause with its remedy, else the last error it names, else its end."""
    for pattern, remedy in _REMEDIES:
        if found := re.search(pattern, log):
            return f"{remedy} ({found[0][:200]})"
    lines = [line.strip() for line in log.splitlines() if line.strip() and " WARNING " not in line]
    errors = [found[0] for line in lines if (found := _ERROR.search(line))]
    causes = [error for error in errors if not any(word in error for word in _UNSAYING)]
    if errors and not causes:
        return f"{_KILLED} ({errors[-1][:200]})"  # an engine that dies of itself says more than that
    return (causes or lines or ["no output"])[-1][:300]


def _rank(adapters: Sequence[Entry]) -> int:
    """The largest rank that the server must hold; PEFT's `rank_pattern` may give some layers more than `r`."""
    needed = max(_largest_rank(entry) for entry in adapters)
    return next((rank for rank in LORA_RANKS if rank >= needed), needed)


def _largest_rank(entry: Entry) -> int:
    pattern = setting(entry.folder, "adapter_config.json", "rank_pattern") or {}
    own = setting(entry.folder, "adapter_config.json", "r") or 16
    return max(int(str(rank)) for rank in (own, *(pattern.values() if isinstance(pattern, Mapping) else ())))
