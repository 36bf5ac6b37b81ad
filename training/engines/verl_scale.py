"""What a run on verl would fail at first beyond its first step: counted from the composed settings, without a GPU.

Each finding says what was counted. A `problem` either stops the run (`hook`), or belongs to this machine alone, or is
`advice`: the run would start and most likely regret it.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_harness.harness.types import Task
from aem_harness.training.start import policy_or_hub
from aem_harness.training.verl_config import VerlConfig

GIB = 1 << 30
CROWD = 64  # containers at once on a node from which an engine with default settings becomes slow
KEPT = 20  # checkpoints of one run that nobody needs all of
THOUGHT = "a thought that only this reply has"


@dataclass(frozen=True)
class FitFinding:
    """One thing that was looked at. `hook` findings decide whether verl fits; of the others, `advice` is no obstacle,
    and the rest says whether it can run here."""

    what: str
    problem: str = ""
    hook: bool = True
    advice: bool = False


def advice(what: str, problem: str = "") -> FitFinding:
    return FitFinding(what, problem, hook=False, advice=True)


def findings(config: VerlConfig, composed: Any, tasks: list[Task]) -> Iterator[FitFinding]:
    """Everything that can be counted, in the order in which it would go wrong. `tasks` may be empty: not known yet."""
    yield from _lengths(composed)
    yield from _advantages(composed)
    yield from _saving(config, composed)
    yield _evaluation(config, composed)
    if config.gate:
        yield _schedule(composed)
    yield from _containers(config, composed)
    yield from _images(composed, tasks)
    yield _waiting(config)
    yield from _template(config, composed)


def _lengths(composed: Any) -> Iterator[FitFinding]:
    """A rollout must fit the server's context and, whole, into what the actor takes at once."""
    actor, rollout, data = composed.actor_rollout_ref.actor, composed.actor_rollout_ref.rollout, composed.data
    whole = data.max_prompt_length + data.max_response_length
    room = rollout.max_model_len
    what = f"a rollout of {whole} tokens"
    if room is not None and room < whole:
        yield FitFinding(what, f"rollout.max_model_len is {room}: give it at least {whole}")
    if actor.use_dynamic_bsz:
        most = actor.ppo_max_token_len_per_gpu * actor.get("ulysses_sequence_parallel_size", 1)
        if most < whole:
            yield FitFinding(
                what, f"actor.ppo_max_token_len_per_gpu times the sequence-parallel size is {most}: at least {whole}"
            )
            return
    if room is None or room >= whole:
        yield FitFinding(what)


def _advantages(composed: Any) -> Iterator[FitFinding]:
    """Whitening over tokens moves what a group baseline had made 0 (findings/verl-whitening-*.sh)."""
    if (name := composed.algorithm.adv_estimator) == "reinforce_plus_plus_baseline":
        yield advice(
            f"advantages by {name}",
            "verl whitens them over the batch's tokens, so that a task whose rollouts all failed is reinforced when "
            "failures are longer than successes: use grpo or rloo, which give it 0",
        )


def _saving(config: VerlConfig, composed: Any) -> Iterator[FitFinding]:
    trainer = composed.trainer
    if trainer.save_freq <= 0:
        yield FitFinding("checkpoints", "trainer.save_freq is not positive, so none is written: set it")
        return
    most = -(-config.steps // trainer.save_freq)
    kept = trainer.max_actor_ckpt_to_keep
    crowded = kept is None and most > KEPT
    yield advice(
        f"checkpoints: one every {trainer.save_freq} steps, {'all' if kept is None else kept} of {most} kept",
        f"{most} checkpoints with their optimizer states stay on the disk: set trainer.max_actor_ckpt_to_keep"
        if crowded
        else "",
    )


def _evaluation(config: VerlConfig, composed: Any) -> FitFinding:
    evaluates = composed.trainer.test_freq > 0 or composed.trainer.val_before_train
    if evaluates and not config.sandbox.validation:
        return FitFinding(
            "evaluation during training",
            "it would run on the training rows: name held-out ones in sandbox.validation, or set trainer.test_freq "
            "to -1 and trainer.val_before_train to false",
        )
    if not evaluates and config.gate is None:
        return advice("evaluation during training", "there is none: trainer.test_freq, or a section gate")
    return FitFinding("evaluation during training", hook=False)


def _schedule(composed: Any) -> FitFinding:
    """With a gate verl is started once a part, and each time told a later last step, which a schedule reads."""
    optim = composed.actor_rollout_ref.actor.optim
    kind, ratio = optim.get("lr_scheduler_type", "constant"), optim.get("lr_warmup_steps_ratio", 0.0)
    wrong = "" if kind == "constant" and not ratio else (
        "the learning rate depends on the number of steps, which a gate gives verl piece by piece: use a constant one, "
        "with lr_warmup_steps instead of a ratio"
    )  # fmt: skip
    return FitFinding("learning rate under a gate", wrong)


def _containers(config: VerlConfig, composed: Any) -> Iterator[FitFinding]:
    """verl gives worker i the node i modulo nodes; a worker starts all of its rollouts at once."""
    nodes, workers = composed.trainer.nnodes, composed.actor_rollout_ref.rollout.agent.num_workers
    if workers < nodes:
        yield advice(
            f"{workers} agent workers", f"{nodes - workers} of {nodes} nodes run no containers: set num_workers"
        )
    ahead = composed.algorithm.filter_groups.max_inflight_gen_batches if composed.algorithm.filter_groups.enable else 1
    at_once = composed.data.train_batch_size * composed.actor_rollout_ref.rollout.n * max(1, ahead or 1)
    on_busiest = -(-workers // nodes)
    most = -(-at_once // workers) * on_busiest
    if limit := config.sandbox.containers:
        most = min(most, limit * on_busiest)
    memory = config.sandbox.limits.memory
    crowded = most > CROWD and not config.sandbox.containers
    yield advice(
        f"containers: up to {most} rollouts at once on a node, each may take {memory}",
        "set sandbox.containers to the capacity of a node, divided by its agent workers" if crowded else "",
    )
    uneven = workers % nodes
    yield advice(
        f"refilled prompts go round all {workers} agent workers",
        f"{uneven} nodes have one worker more than the others: make num_workers a multiple of {nodes}"
        if uneven
        else "",
    )


def _images(composed: Any, tasks: list[Task]) -> Iterator[FitFinding]:
    if not tasks:
        return
    names = {task.instance.image for task in tasks}
    built = sum(bool(task.dockerfile) for task in {task.instance.image: task for task in tasks}.values())
    free = shutil.disk_usage(_engine_folder()).free / GIB
    need = len(names) * 1.5  # GiB beyond shared layers, as SWE-bench's own images take
    yield advice(
        f"images: {len(names)} ({built} built here), on every node that needs it; {free:.0f} GiB free on this one",
        f"they take some {need:.0f} GiB on each of {composed.trainer.nnodes} nodes: pull them beforehand (aem images "
        "pull), from a registry of your own, and train on fewer if they do not fit"
        if need > free
        else "",
    )


def _engine_folder() -> Path:
    """Where the engine keeps images, as far as this process can see."""
    return next((path for path in (Path("/var/lib/docker"), Path("/var/lib/containers")) if path.is_dir()), Path("/"))


def _waiting(config: VerlConfig) -> FitFinding:
    """A rollout that waits for tokens or tests for ever holds its whole batch."""
    return FitFinding(
        f"waits: {config.sandbox.token_timeout:g} s for a reply's tokens, {config.sandbox.grade_timeout:g} s for tests",
        hook=False,
    )


def _template(config: VerlConfig, composed: Any) -> Iterator[FitFinding]:
    """Training keeps every id as it was sampled; a server at evaluation renders the whole conversation anew."""
    what = "chat template at training and at evaluation"
    if composed.actor_rollout_ref.model.get("custom_chat_template"):
        yield advice(
            what, "model.custom_chat_template is not in the checkpoint: write it into the start's tokenizer instead"
        )
        return
    try:
        start = policy_or_hub(config.start)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(start, local_files_only=True)
    except Exception:  # the policy's own finding says what is missing
        return
    if not tokenizer.chat_template:
        yield FitFinding(what, f"the tokenizer of {config.start} has none: add chat_template.jinja to it")
        return
    yield advice(what, forgets(tokenizer))


def forgets(tokenizer: Any) -> str:
    """What a chat template leaves out of earlier replies, which the policy saw while it was trained; empty: nothing."""
    reply = f"<think>\n{THOUGHT}\n</think>\n\nls"
    dialogue = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": "b"},
    ]
    text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
    if THOUGHT in text:
        return ""
    return (
        "it drops the thoughts of earlier replies, which stay in what is trained on: evaluate with a template that "
        "keeps them (serving.chat_template of the card), or train a policy that does not think"
    )
