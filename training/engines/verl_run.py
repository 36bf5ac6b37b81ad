"""`kind: verl`: settings to verl's configuration, the check of everything that is hooked into, and the launch.

A run is `python -m verl.trainer.main_ppo` with the composed overrides, which on a cluster goes to Ray as any verl run
does. `check` does the same up to the launch, without a GPU: it composes and validates the configuration with verl's
own code, loads the plug-in as verl does, and looks at every name and parameter that the plug-in relies on.
"""

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aem_harness.aem_checkpoints.card import CARD, Card, Method, Scaffold, Training, read_card
from aem_harness.aem_checkpoints.weights import identify
from aem_harness.harness.errors import ConfigError, DataError, EnvironmentFault
from aem_harness.harness.io import write_text
from aem_harness.harness.types import Task
from aem_harness.training.engines import verl_scale
from aem_harness.training.engines.verl_scale import FitFinding
from aem_harness.training.folder import enter, parent_of
from aem_harness.training.guard import certificate_of
from aem_harness.training.start import policy_or_hub
from aem_harness.training.verl_config import VerlConfig
from aem_harness.training.watch import Watcher, due

VERSION = "0.9.1"  # what the plug-in is written against and tested with
PLUGIN = "aem_harness.training.engines.verl_plugin"
REMEDY = "pip install 'aem-harness[verl-vllm]' on every node"
TOKENS = "verl.utils.tokenizer.continuous_token"
# module, attribute path, parameters that are passed by name or position
HOOKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("verl.trainer.main_ppo", "TaskRunnerV1", ()),
    ("verl.trainer.ppo.v1", "register_trainer", ("name",)),
    ("verl.trainer.ppo.v1", "get_trainer_cls", ("name",)),
    ("verl.trainer.ppo.v1", "PPOTrainerSync", ("config",)),
    ("verl.trainer.ppo.v1", "PPOTrainerColocateAsync", ("config",)),
    ("verl.trainer.ppo.v1", "PPOTrainerSeparateAsync", ("config",)),
    ("verl.trainer.ppo.v1.trainer_base", "PPOTrainer._compute_advantage", ("batch", "metrics")),
    ("verl.trainer.ppo.v1.trainer_base", "PPOTrainer._compute_old_log_prob", ("batch", "metrics")),
    ("verl.trainer.ppo.v1.trainer_base", "PPOTrainer._build_replay_buffer", ()),
    ("verl.trainer.ppo.v1.trainer_base", "PPOTrainer._submit_batch_to_rollout", ("batch",)),
    ("verl.trainer.ppo.v1.agent_loop_tq", "AgentLoopManagerTQ.generate_sequences", ("prompts",)),
    (
        "verl.trainer.ppo.v1.replay_buffer",
        "ReplayBuffer._terminal_eviction_reasons",
        ("global_steps", "partition_id"),
    ),
    ("verl.trainer.ppo.core_algos", "register_adv_est", ("name_or_enum",)),
    ("verl.trainer.ppo.core_algos", "get_adv_estimator_fn", ("name_or_enum",)),
    ("verl.trainer.ppo.core_algos", "compute_rloo_outcome_advantage", ("token_level_rewards", "response_mask")),
    ("verl.experimental.agent_loop.agent_loop", "register", ("agent_name",)),
    ("verl.experimental.agent_loop.agent_loop", "AgentLoopBase.run", ("sampling_params",)),
    ("verl.workers.rollout.llm_server", "LLMServerClient.generate", ("request_id", "prompt_ids", "sampling_params")),
    ("verl.workers.utils.padding", "response_to_nested", ("tensor", "response_mask")),
    (TOKENS, "ContinuousTokenBuilder.build_initial_tokens", ("messages",)),
    (TOKENS, "ContinuousTokenBuilder.merge_context_tokens", ("runtime_token_ids",)),
    (
        "verl.utils.tokenizer.continuous_token",
        "ContinuousTokenBuilder.merge_assistant_tokens",
        ("assistant_token_ids",),
    ),
    (
        "verl.utils.tokenizer.continuous_token",
        "ContinuousTokenBuilder.align_response_metadata",
        ("assistant_logprobs",),
    ),
    ("transfer_queue", "kv_batch_get", ("keys", "partition_id", "select_fields")),
    ("transfer_queue", "kv_batch_put", ("keys", "partition_id", "fields")),
)
OUTPUT_FIELDS = (
    "prompt_ids",
    "response_ids",
    "response_mask",
    "response_logprobs",
    "reward_score",
    "num_turns",
    "metrics",
    "extra_fields",
)  # fmt: skip
# Written and read where no signature shows it: (method, what its source must mention).
FIELDS = (
    ("_compute_old_log_prob", ('"calculate_entropy": True', '"old_log_probs", "entropy"')),
    ("_compute_advantage", ('"uid"', '"response_mask"', '"advantages"')),
    ("__init__", ("trainer.v1.trainer_mode",)),
)


def train(config: VerlConfig, out: Path, *, resume: bool = False, watcher: Watcher | None = None) -> Path:
    """Check, write the dataset, run verl in the foreground; returns the folder of verl's last checkpoint.

    With a gate verl is run up to each step that is gated and started again afterwards, from its own checkpoint: while
    the gate serves the policy, the GPUs are free.
    """
    require_verl()
    if (out / "verl").exists() and not resume:
        raise ConfigError(f"{out} holds a run: give --resume, or another --out")
    if wrong := [finding for finding in check(config, out) if finding.problem and not finding.advice]:
        raise ConfigError(f"this cannot run here: {'; '.join(f'{w.what}: {w.problem}' for w in wrong)}")
    from aem_harness.harness.instances.load import load_tasks

    out.mkdir(parents=True, exist_ok=True)
    held_out = validation_rows(config)
    certificate = write_rows(load_tasks(config.sandbox.instances), dataset_of(out), config.sandbox.instances, held_out)
    if config.sandbox.validation:
        write_parquet(held_out[config.sandbox.validation], validation_of(config, out))
    enter(out, config, card(config, certificate))
    begun = reached(out)
    for stop in config.gate.steps(config.steps) if config.gate else [config.steps]:
        if stop < begun:
            continue  # gated in its time, or not asked for then: its checkpoint may be gone
        if reached(out) < stop:
            done = subprocess.run(command(config, out, until=stop), check=False, env={**os.environ, **places(out)})
            if done.returncode != 0:
                raise EnvironmentFault(f"verl ended with status {done.returncode}; what it said is above")
        if watcher and due(config.gate, stop, config.steps, out):
            watcher(stop, finish(out, stop))
    return finish(out)


def reached(out: Path) -> int:
    """The step of verl's last whole checkpoint, as verl itself notes it; 0 where there is none."""
    noted = out / "verl" / "latest_checkpointed_iteration.txt"
    return int(noted.read_text().strip() or 0) if noted.is_file() else 0


def card(config: VerlConfig, certificate: Mapping[str, Any]) -> Card:
    """The provenance of a run's checkpoints."""
    actor = dict(flat(config.verl))
    aem = config.aem.model_dump(mode="json") if config.aem else {}
    return Card(
        name=config.name,
        path=".",
        parent=parent_of(config.start),
        method=Method(
            kind="aem" if config.aem else "baseline",
            base=f"verl {VERSION} {actor.get('algorithm.adv_estimator', 'gae')}",
            parameters={**aem, "lr": actor.get("actor_rollout_ref.actor.optim.lr", 1e-6)},
        ),
        training=Training(
            run=f"{config.name}-seed{config.seed}",
            step=config.steps,
            seeds=(config.seed,),
            config=config.model_dump(mode="json", exclude_defaults=True),
            certificate=certificate,
        ),
        scaffold=Scaffold(agent=config.sandbox.agent, options=dict(config.sandbox.agent_options)),
        sampling={"temperature": actor.get("actor_rollout_ref.rollout.temperature", 1.0)},
    )


def finish(out: Path, step: int | None = None) -> Path:
    """The last checkpoint of a run, or that of a step, as a Hugging Face folder with its card; verl's shards are merged
    where it wrote no such folder itself."""
    saved = {int(path.name.rpartition("_")[2]): path for path in (out / "verl").glob("global_step_*") if path.is_dir()}
    if not saved:
        raise EnvironmentFault(f"verl ended well and left no checkpoint in {out / 'verl'}: set trainer.save_freq")
    last = max(saved) if step is None else step
    if last not in saved:
        raise EnvironmentFault(f"verl ended well and left no checkpoint of step {last} in {out / 'verl'}")
    actor = saved[last] / "actor"
    folder = actor / "huggingface"
    if not any(folder.glob("*.safetensors")):
        merge = ["merge", "--backend", "fsdp", "--local_dir", str(actor), "--target_dir", str(folder)]
        done = subprocess.run([sys.executable, "-m", "verl.model_merger", *merge], check=False)
        if done.returncode != 0:
            raise EnvironmentFault(f"verl's model_merger ended with status {done.returncode} on {actor}")
    known = read_card(out / CARD)
    training = known.training.model_copy(update={"step": last})
    made = known.model_copy(update={"training": training, "digests": identify(folder)})
    write_text(folder / CARD, made.to_yaml())
    return folder


def require_verl() -> None:
    if find_spec("verl") is None:
        raise ConfigError(f"verl is not installed: {REMEDY}")


# --- settings -----------------------------------------------------------------------------------------------------


def command(config: VerlConfig, out: Path, until: int | None = None) -> list[str]:
    """What runs it, word by word; `until` a step before the last one."""
    return [sys.executable, "-m", "verl.trainer.main_ppo", *overrides(config, out, until)]


def overrides(config: VerlConfig, out: Path, until: int | None = None) -> list[str]:
    """Hydra's words: ours first, the file's `verl` section after them, so that it wins."""
    out = out.resolve()  # verl's processes have working folders of their own
    sandbox = config.sandbox.model_dump(mode="json")
    ours: dict[str, Any] = {
        "hydra.run.dir": str(out / "hydra"),
        "trainer.project_name": "aem",
        "trainer.experiment_name": config.name,
        "trainer.default_local_dir": str(out / "verl"),
        "trainer.total_training_steps": until or config.steps,
        "trainer.total_epochs": config.steps,  # more than enough: the steps decide when it ends
        "trainer.val_before_train": bool(config.sandbox.validation),
        "trainer.v1.trainer_mode": f"aem_{config.mode}",
        "trainer.v1.sampler.sync_refill_failed_groups": True,  # a group lost to a fault is drawn again
        "actor_rollout_ref.model.path": _model(config.start),
        "actor_rollout_ref.rollout.agent.default_agent_loop": "aem_sandbox",
        "actor_rollout_ref.rollout.seed": config.seed,
        "actor_rollout_ref.actor.data_loader_seed": config.seed,
        "data.seed": config.seed,
        "data.train_files": str(dataset_of(out)),
        "data.val_files": str(validation_of(config, out)),
    }
    words = [f"{key}={hydra_value(value)}" for key, value in (ours | dict(flat(config.verl))).items()]
    # Their defaults are relative to folders that Ray makes, on whichever node a process is.
    env = "+ray_kwargs.ray_init.runtime_env.env_vars"
    words += [f"{env}.{name}={hydra_value(path)}" for name, path in places(out).items()]
    words.append(f"+aem.method={hydra_value(config.aem.model_dump(mode='json') if config.aem else None)}")
    return [*words, f"+aem.sandbox={hydra_value(sandbox)}"]


def _model(start: str) -> str:
    """What verl is told: a folder in full, as its processes have working folders of their own; else the id as it is."""
    try:
        policy = policy_or_hub(start)
    except ConfigError:
        return start  # the check says so, beside everything else that is missing
    return str(Path(policy).resolve()) if Path(policy).is_dir() else policy


def dataset_of(out: Path) -> Path:
    return out / "train.parquet"


def validation_of(config: VerlConfig, out: Path) -> Path:
    """The rows that verl evaluates on. Without any it is told its training rows, and never to evaluate."""
    return out / "validation.parquet" if config.sandbox.validation else dataset_of(out)


def places(out: Path) -> dict[str, str]:
    """Where experiment trackers write: in the run's folder, unless the environment says otherwise."""
    ours = {
        "TENSORBOARD_DIR": str(out.resolve() / "tensorboard"),
        "WANDB_DIR": str(out.resolve()),
        "MLFLOW_TRACKING_URI": f"sqlite:///{out.resolve() / 'mlflow.db'}",
    }
    return {name: os.environ.get(name, place) for name, place in ours.items()}


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted ones."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def hydra_value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, in which it stays what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[A-Za-z_/][\w./+-]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def compose(config: VerlConfig, out: Path) -> Any:
    """verl's whole configuration, validated by verl; ConfigError says what it did not like."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    words = [word for word in overrides(config, out) if not word.startswith("hydra.")]
    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            composed = hydra_compose("ppo_trainer", words)
        validate_config(composed, need_reference_policy(composed), need_critic(composed))
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"verl refuses these settings: {' '.join(str(error).split())}") from None
    return composed


def validation_rows(config: VerlConfig) -> dict[str, list[Task]]:
    """The sets that training rows are kept apart from, by name: those of evaluation and of the gate."""
    from aem_harness.harness.instances.load import load_tasks

    named = [config.sandbox.validation, config.gate.set if config.gate else ""]
    return {name: load_tasks(name) for name in dict.fromkeys(filter(None, named))}


def write_rows(
    tasks: Sequence[Task], file: Path, source: str = "", held_out: Mapping[str, Sequence[Task]] | None = None
) -> dict[str, Any]:
    """The dataset as verl's loader reads it. Returns its certificate, with what `aem data prepare` says of the rows
    where they are its `source`.

    Raises ConfigError for tasks that checkpoints are measured on, whatever set or name they come under (`guard`), and
    for those of `held_out` sets.
    """
    certificate = certificate_of(source, tasks, held_out)
    write_parquet(tasks, file)
    return certificate


def write_parquet(tasks: Sequence[Task], file: Path) -> None:
    """Rows for verl; what the policy sees of a task is the agent's to say."""
    import pandas

    rows = [
        {
            "prompt": [{"role": "user", "content": task.instance.problem_statement}],
            "data_source": task.dataset or "aem",
            "task": task.model_dump_json(),
            "extra_info": {"index": index, "instance_id": task.instance_id},
        }
        for index, task in enumerate(tasks)
    ]
    pandas.DataFrame(rows).to_parquet(file)


# --- the check ----------------------------------------------------------------------------------------------------


def check(config: VerlConfig, out: Path) -> list[FitFinding]:
    """Everything the run relies on, in the order in which it would be needed. Raises ConfigError without verl."""
    require_verl()
    composed = compose(config, out)
    return [
        FitFinding(f"verl {_version()}", "" if _version() == VERSION else f"the plug-in is written against {VERSION}"),
        FitFinding("configuration of ppo_trainer composed and validated"),
        *_plugin(composed),
        *(_hook(*hook) for hook in HOOKS),
        *_fields(),
        *_here(config, composed),
        *verl_scale.findings(config, composed, _tasks(config.sandbox.instances)),
    ]


def refuse_misfit(findings: Iterable[FitFinding]) -> None:
    """Raise ConfigError if the installed verl lacks something that the plug-in hooks into."""
    broken = [f"{finding.what} ({finding.problem})" for finding in findings if finding.problem and finding.hook]
    if broken:
        raise ConfigError(f"this would not run: {'; '.join(broken)}; what verl lacks: {REMEDY}")


def _version() -> str:
    return version("verl")


def _plugin(composed: Any) -> Iterator[FitFinding]:
    """The plug-in as verl finds it, and that what the configuration names was registered by it."""
    found = [point for point in entry_points(group="verl.plugins") if point.value == PLUGIN]
    yield FitFinding(
        "entry point verl.plugins", "" if found else "aem-harness is not installed here, as it must be on every node"
    )
    try:
        import_module(PLUGIN)
    except Exception as error:
        yield FitFinding(f"plug-in {PLUGIN}", f"{type(error).__name__}: {error}")
        return
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    estimator = str(composed.algorithm.adv_estimator)
    for what, name, registry in (
        ("trainer", composed.trainer.v1.trainer_mode, TRAINER_REGISTRY),
        ("agent loop", composed.actor_rollout_ref.rollout.agent.default_agent_loop, _agent_loop_registry),
        ("advantage estimator", estimator, ADV_ESTIMATOR_REGISTRY),
        ("advantage estimator", "aem", ADV_ESTIMATOR_REGISTRY),
    ):
        yield FitFinding(f"{what} {name}", "" if name in registry else "not registered")


def _hook(module: str, path: str, parameters: Iterable[str]) -> FitFinding:
    what = f"{module}.{path}"
    try:
        target: Any = import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        return FitFinding(what, str(error))
    try:
        known = inspect.signature(inspect.unwrap(target)).parameters if parameters else {}
    except ValueError as error:
        return FitFinding(what, str(error))
    lacking = [name for name in parameters if name not in known]
    return FitFinding(what, f"takes no {', '.join(lacking)}" if lacking else "")


def _fields() -> Iterator[FitFinding]:
    from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    lacking = [name for name in OUTPUT_FIELDS if name not in AgentLoopOutput.model_fields]
    yield FitFinding("fields of AgentLoopOutput", f"no {', '.join(lacking)}" if lacking else "")
    for method, words in FIELDS:
        source = inspect.getsource(getattr(PPOTrainer, method))
        lacking = [word for word in words if word not in source]
        yield FitFinding(f"fields of PPOTrainer.{method}", f"no {', '.join(lacking)}" if lacking else "")


def _here(config: VerlConfig, composed: Any) -> Iterator[FitFinding]:
    """What a launch needs and a check does not."""
    import torch

    wanted, seen = composed.trainer.n_gpus_per_node * composed.trainer.nnodes, torch.cuda.device_count()
    cluster = os.environ.get("RAY_ADDRESS", "")
    enough = bool(cluster) or seen >= wanted
    yield FitFinding(
        f"{wanted} GPUs ({composed.trainer.nnodes} nodes)",
        "" if enough else f"{seen} here, and RAY_ADDRESS names no cluster",
        hook=False,
    )
    server = composed.actor_rollout_ref.rollout.name
    yield FitFinding(f"rollout server {server}", "" if find_spec(server) else f"pip install {server}", hook=False)
    yield FitFinding(f"policy {config.start}", _policy(config.start), hook=False)
    yield FitFinding("a container engine", "" if shutil.which("docker") else "install Docker on every node", hook=False)
    instances = config.sandbox.instances
    yield FitFinding(f"instances {instances}".rstrip(), _instances(config), hook=False)


def _tasks(source: str) -> list[Task]:
    """The rows, as far as they can be read."""
    from aem_harness.harness.instances.load import load

    try:
        return load(source).tasks if source else []
    except DataError:
        return []


def _instances(config: VerlConfig) -> str:
    """Why the rows will not do: they are read and held against what is measured on, as the run does."""
    from aem_harness.harness.instances.load import load_tasks

    source = config.sandbox.instances
    if not source:
        return "set sandbox.instances"
    try:
        certificate_of(source, load_tasks(source), validation_rows(config))
    except (ConfigError, DataError) as error:
        return str(error)
    return ""


def _policy(start: str) -> str:
    try:
        policy = policy_or_hub(start)
    except ConfigError as error:
        return str(error)
    if Path(policy).is_dir():
        return ""
    from huggingface_hub import try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(start, "config.json"), str)
    return "" if cached else "neither a folder nor in the hub's cache; fetch it with: hf download " + start
