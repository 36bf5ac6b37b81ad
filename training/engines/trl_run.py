"""`kind: trl`: the bug-fix world played and learned by TRL's GRPOTrainer, on one node, with any causal LM of the hub.

Rollouts are multi-turn: a `rollout_func` plays `training.environment.Episode`, all rollouts of a batch at once, and
hands TRL the ids with an `env_mask` that is 0 on what the environment said. The folder looks like the reference
trainer's (`config.json`, `metrics.jsonl`, `checkpoint/` with its card); TRL's own checkpoints lie in `trl/`.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from aem_harness.aem_checkpoints.card import CARD, Card, Method, Serving, Training, read_card
from aem_harness.agents.templates import Prompts
from aem_harness.harness.errors import ConfigError
from aem_harness.harness.io import write_text
from aem_harness.training import tasks
from aem_harness.training.checkpoint import digest
from aem_harness.training.config import TrlConfig, WarmStart
from aem_harness.training.environment import PROMPTS, Episode, Skill, demonstration
from aem_harness.training.folder import enter, is_main, parent_of, refuse
from aem_harness.training.guard import certify_bug_fixes
from aem_harness.training.reference import scaffold
from aem_harness.training.rollouts import EpisodeLimits
from aem_harness.training.start import policy_or_hub
from aem_harness.training.watch import Watcher, due, held

Report = Callable[[Mapping[str, Any]], None]
MARK = "\x00reply\x00"


def train(
    config: TrlConfig,
    out: Path,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
    watcher: Watcher | None = None,
) -> Path:
    """Train and return the folder of the final checkpoint; `report` gets every logged step.

    `watcher` gets the checkpoint of every step that `config.gate` names; after a kill, of the saved one first.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

    from aem_harness.training.engines.trl import AemGRPOTrainer, check_trl

    check_trl()
    check_vllm(config)
    saved = out / "trl"
    last = last_checkpoint(saved)
    refuse(out, config, step_of(last), resume=resume)
    refuse_several(config)
    start = policy_or_hub(config.start)
    player = Player(config)
    if is_main():
        enter(out, config, card(config, certify_bug_fixes(player.pool)))
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load {config.start}: {' '.join(str(error).split())[:300]}") from None
    if adapter := lora(config):
        from peft import get_peft_model

        model = get_peft_model(model, adapter)
    if config.warm_start and last is None:
        warm_start(model, tokenizer, player, config.warm_start, seed=config.seed, report=report)
    trainer = AemGRPOTrainer(
        model,
        reward_funcs=[episode_reward],
        args=arguments(config, saved),
        train_dataset=dataset(config),
        processing_class=tokenizer,
        rollout_func=player,
        aem=config.aem,
    )
    trainer.remove_callback(PrinterCallback)  # every step's numbers are in metrics.jsonl and reported
    trainer.add_callback(_callback(out / "metrics.jsonl", report, last))
    if watcher:
        gate = _gating(config, out, watcher)
        gate.gate(step_of(last) or 0, last)
        trainer.add_callback(gate)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return save(trainer, tokenizer, config, out / "checkpoint")


def arguments(config: TrlConfig, folder: Path) -> Any:
    """TRL's own settings: ours, and over them whatever `arguments` says."""
    from trl import GRPOConfig

    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.prompts * config.group,
        "num_generations": config.group,
        "learning_rate": config.learning_rate,
        "temperature": config.temperature,
        "seed": config.seed,
        "logging_steps": 1,
        "save_steps": config.checkpoint_every,
        "save_total_limit": 2,
        "report_to": list(config.report_to) or "none",
        "run_name": f"{config.name}-seed{config.seed}",
        "disable_tqdm": True,
        "log_level": "error",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "lr_scheduler_type": "constant",
        "max_grad_norm": config.max_gradient_norm,
        "beta": 0.0,
        "loss_type": "grpo",
        "max_completion_length": config.context,
        "gradient_checkpointing": False,
    }
    if config.arguments.get("use_vllm"):
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and config.arguments.get("vllm_mode") == "server"
        if several or config.arguments.get("vllm_tensor_parallel_size", 1) != 1:
            raise ConfigError(
                "arguments: processes that share one vLLM must ask it equally often, and episodes differ in turns; "
                "use vllm_mode: colocate and vllm_tensor_parallel_size: 1"
            )
        ours["vllm_max_model_length"] = config.context + config.max_reply
        ours["generation_kwargs"] = {"max_tokens": config.max_reply}  # of a turn, not of a whole conversation
    try:
        return GRPOConfig(**{**ours, **config.arguments})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"arguments: {error}") from None


def check(config: TrlConfig, out: Path, *, resume: bool) -> None:
    """What a run checks before its first step, without loading the policy; raises ConfigError."""
    from aem_harness.training.engines.trl import check_trl

    check_trl()
    check_vllm(config)
    refuse(out, config, step_of(last_checkpoint(out / "trl")), resume=resume)
    policy_or_hub(config.start)
    refuse_several(config)
    arguments(config, out / "trl")
    lora(config)


def check_vllm(config: TrlConfig) -> None:
    """ConfigError when the settings want vLLM's sampling and it is not in this environment."""
    if config.arguments.get("use_vllm") and find_spec("vllm") is None:
        raise ConfigError(
            "arguments.use_vllm: vLLM is not installed beside TRL: pip install 'trl[vllm]', or, without a GPU, "
            "-c arguments.use_vllm=false"
        )


def lora(config: TrlConfig) -> Any:
    """PEFT's configuration of the adapter that is trained; None where all weights are."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(task_type="CAUSAL_LM", **config.lora)
    except TypeError as error:
        raise ConfigError(f"lora: {error}") from None


def refuse_several(config: TrlConfig) -> None:
    """ConfigError for a gate among several processes: the others would wait for one longer than they may."""
    if config.gate and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "gate: with several processes the others time out while one is gated; train in one process, or gate the "
            "checkpoints that it saves afterwards: aem checkpoints add NAME@* --path RUN/trl, then aem gate"
        )


def step_of(checkpoint: Path | None) -> int | None:
    return int(checkpoint.name.partition("-")[2]) if checkpoint else None


def dataset(config: TrlConfig) -> Any:
    """One row a training task. The prompt is the task's number: what the policy reads is the episode's to say."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [str(number) for number in range(config.tasks)]})


def episode_reward(completions: Sequence[Any], reward: Sequence[float], **_: Any) -> list[float]:
    """What the player found, which is what the grader would say of the work tree."""
    return list(reward)


@dataclass
class PlayedRollout:
    """One rollout: `sampled` is 1 where the policy chose the id, over everything after the prompt.

    `logprobs` are the sampler's, 0 on what the environment said; only vLLM tells them.
    """

    episode: Episode
    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, ids: list[int], logprobs: list[float], *, sampled: bool) -> None:
        self.ids += ids
        self.sampled += [int(sampled)] * len(ids)
        self.logprobs += logprobs


class Player:
    """TRL's `rollout_func`: plays the tasks that the prompts number, one rollout a prompt, and fills its batch."""

    def __init__(self, config: TrlConfig) -> None:
        self.config = config
        self.prompts = Prompts.load(PROMPTS)
        self.pool = list(tasks.tasks("train", seed=tasks.TRAIN_SEED, count=config.tasks))

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        tokenizer = trainer.processing_class
        played = []
        for prompt in prompts:
            episode = Episode(self.pool[int(prompt)], self.prompts, self.config.max_steps)
            opening = tokenizer.apply_chat_template(episode.messages, add_generation_prompt=True, return_dict=False)
            played.append(PlayedRollout(episode, list(opening)))
        sampler = VllmSampler(trainer) if trainer.use_vllm else CachedSampler(trainer, self.config)
        live, unread, kept = played, [one.prompt for one in played], list(range(len(played)))
        while live:
            replies = sampler(unread, kept)
            unread, kept = [], []
            for place, (one, (reply, logprobs)) in enumerate(zip(live, replies, strict=True)):
                one.add(reply, logprobs, sampled=True)
                if after := self._seen(one, reply, tokenizer):
                    one.add(after, [0.0] * len(after), sampled=False)
                    unread.append(after)
                    kept.append(place)
            live = [live[place] for place in kept]
        return {
            "prompt_ids": [one.prompt for one in played],
            "completion_ids": [one.ids for one in played],
            # None: the sampler is the trained model itself, and there is nothing to correct for.
            "logprobs": [one.logprobs for one in played] if trainer.use_vllm else None,
            "env_mask": [self._learned(one) for one in played],
            "reward": [one.episode.reward for one in played],
        }

    def _learned(self, one: PlayedRollout) -> list[int]:
        """1 where the loss is to look. TRL takes a rollout for truncated only if its last reply is, and a limit ends it
        after a whole reply (findings/trl-counts-a-rollout-cut-at-a-tool-result-as-whole.sh)."""
        masked = self.config.arguments.get("mask_truncated_completions") and one.episode.status
        return [0] * len(one.sampled) if masked and masked.at_a_limit else one.sampled

    def demonstrated(self, random: Random, skill: Skill, tokenizer: Any) -> PlayedRollout:
        """A scripted episode on one of the tasks, as if the policy had played it."""
        done = demonstration(random.choice(self.pool), skill, random, self.prompts)
        one = PlayedRollout(Episode(done.task, self.prompts, self.config.max_steps), [])
        one.prompt += tokenizer.apply_chat_template(one.episode.messages, add_generation_prompt=True, return_dict=False)
        for message in done.messages[2:]:
            if message["role"] == "assistant":
                reply = [*tokenizer.encode(message["content"], add_special_tokens=False), tokenizer.eos_token_id]
                one.add(reply, [], sampled=True)
                if not (after := self._seen(one, reply, tokenizer)):
                    break
                one.add(after, [], sampled=False)
        return one

    def _seen(self, one: PlayedRollout, reply: list[int], tokenizer: Any) -> list[int]:
        """What the policy reads after this reply, up to its next turn; empty when the episode has ended."""
        observation = one.episode.reply(tokenizer.decode(reply, skip_special_tokens=True))
        if observation is None:
            return []
        after = following(tokenizer, observation)
        if reply[-1] == after[0] == tokenizer.eos_token_id:
            after = after[1:]
        if len(one.prompt) + len(one.ids) + len(after) + 1 >= self.config.context:
            one.episode.cut("no room for the observation")
            return []
        return after


Reply = tuple[
    list[int], list[float]
]  # ids, its end token included, and the sampler's log-probabilities where it has any


class CachedSampler:
    """The trained model's own `generate`. What was read in earlier turns stays in its cache and is not read again.

    Rows of one batch differ in length in every turn, so the ids (R, L) have holes, which the mask leaves out.
    """

    def __init__(self, trainer: Any, config: TrlConfig) -> None:
        from transformers import DynamicCache

        self.trainer, self.config = trainer, config
        self.cache = DynamicCache(config=trainer.accelerator.unwrap_model(trainer.model_wrapped).config)
        self.ids: Tensor | None = None
        self.mask: Tensor | None = None

    def __call__(self, unread: Sequence[list[int]], kept: Sequence[int]) -> list[Reply]:
        """One reply to each conversation. `unread` is what is new to each, `kept` its place among those before."""
        from trl.models import unwrap_model_for_generation

        tokenizer, device = self.trainer.processing_class, self.trainer.accelerator.device
        width = max(map(len, unread))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in unread], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in unread], device=device)
        if self.ids is not None and self.mask is not None:
            rows = torch.tensor(kept, device=device)
            self.cache.batch_select_indices(rows)
            ids, mask = torch.cat([self.ids[rows], ids], 1), torch.cat([self.mask[rows], mask], 1)
        with (
            unwrap_model_for_generation(self.trainer.model_wrapped, self.trainer.accelerator) as model,
            torch.no_grad(),
        ):
            self.ids = model.generate(
                ids,
                attention_mask=mask,
                past_key_values=self.cache,
                max_new_tokens=self.config.max_reply,
                do_sample=True,
                temperature=self.config.temperature,
                top_k=0,
                top_p=1.0,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        replies = [up_to(row, tokenizer.eos_token_id) for row in self.ids[:, ids.shape[1] :].tolist()]
        longest = self.ids.shape[1] - ids.shape[1]
        said = [[1] * len(reply) + [0] * (longest - len(reply)) for reply in replies]
        self.mask = torch.cat([mask, torch.tensor(said, device=device)], 1)
        return [(reply, []) for reply in replies]


class VllmSampler:
    """TRL's vLLM, whose prefix cache keeps earlier turns. TRL corrects for what its log-probabilities differ by."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.read: list[list[int]] = []

    def __call__(self, unread: Sequence[list[int]], kept: Sequence[int]) -> list[Reply]:
        before = [self.read[place] for place in kept] if self.read else [[] for _ in unread]
        self.read = [old + new for old, new in zip(before, unread, strict=True)]
        _, replies, logprobs, _ = self.trainer.vllm_generation.generate(self.read, images=None, num_generations=1)
        self.read = [read + list(reply) for read, reply in zip(self.read, replies, strict=True)]
        return [
            (list(reply), [at[0] for at in told]) for reply, told in zip(replies, logprobs, strict=True)
        ]  # the chosen token's alone is asked for


def warm_start(
    model: Any, tokenizer: Any, player: Player, config: WarmStart, *, seed: int, report: Report = lambda _: None
) -> list[float]:
    """Train what is trainable of `model` on the teacher's replies; returns the loss of every step, nats a token.

    Every process of a run does the same, from generators seeded alike.
    """
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=0.0)
    losses = []
    for step in range(1, config.steps + 1):
        random = Random(f"warm start:{seed}:{step}")
        shown = [player.demonstrated(random, Skill(right=config.right), tokenizer) for _ in range(config.batch)]
        width = max(len(one.prompt) + len(one.ids) for one in shown)
        ids_B_T = torch.full((config.batch, width), tokenizer.pad_token_id, device=model.device)
        labels_B_T = torch.full_like(ids_B_T, -100)  # which transformers leaves out of the loss
        for row, one in enumerate(shown):
            ids = torch.tensor(one.prompt + one.ids, device=model.device)
            sampled = torch.tensor([0] * len(one.prompt) + one.sampled, device=model.device).bool()
            ids_B_T[row, : len(ids)] = ids
            labels_B_T[row, : len(ids)] = torch.where(sampled, ids, -100)
        loss = model(input_ids=ids_B_T, labels=labels_B_T).loss  # rows are padded on the right: no mask is needed
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        report({"step": 0, "warm_start_step": step, "loss": losses[-1]})
    return losses


def up_to(ids: list[int], end: int) -> list[int]:
    """The ids up to and including the first `end`; all of them where there is none."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def following(tokenizer: Any, observation: str) -> list[int]:
    """What the chat template puts after the text of a reply: its closing, the observation, the next opening."""
    dialogue = [
        {"role": "user", "content": "-"},
        {"role": "assistant", "content": MARK},
        {"role": "user", "content": observation},
    ]
    text = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, tokenize=False)
    if text.count(MARK) != 1:
        raise ConfigError("the tokenizer's chat template does not repeat replies as they are; train with another")
    ids: list[int] = tokenizer.encode(text.partition(MARK)[2], add_special_tokens=False)
    return ids


# --- the folder ---------------------------------------------------------------------------------------------------


def last_checkpoint(folder: Path) -> Path | None:
    """TRL's last whole checkpoint: the trainer's state is the last file that it writes."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _callback(file: Path, report: Report, last: Path | None) -> Any:
    """Writes what TRL logs as the reference trainer does; after a kill, from the last whole checkpoint on."""
    from transformers import TrainerCallback

    if is_main():
        done = step_of(last) or 0
        lines = file.read_text().splitlines() if file.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= done]
        write_text(file, "".join(f"{line}\n" for line in kept))

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "reward" in logs and is_main():
                numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
                if "step_time" in logs:
                    rollouts = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
                    sampled = numbers["completions/mean_length"] * rollouts
                    numbers["tokens_per_second"] = sampled / max(numbers["step_time"], 1e-9)
                metrics = {"step": state.global_step, **{k.removeprefix("aem/"): v for k, v in numbers.items()}}
                with file.open("a") as stream:
                    stream.write(json.dumps(metrics) + "\n")
                report(metrics)

    return Log()


def _gating(config: TrlConfig, out: Path, watcher: Watcher) -> Any:
    """Makes TRL save at the steps that are gated, and hands over a copy of what it saved."""
    from transformers import TrainerCallback

    class Gate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if due(config.gate, state.global_step, config.steps, out):
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.gate(state.global_step, out / "trl" / f"checkpoint-{state.global_step}")

        def gate(self, step: int, saved: Path | None) -> None:
            if saved and due(config.gate, step, config.steps, out):
                watcher(step, held(saved, out, step))

    return Gate()


def save(trainer: Any, tokenizer: Any, config: TrlConfig, folder: Path) -> Path:
    """A Hugging Face folder, or an adapter's, with the card that the registry reads.

    Every process calls it, as the weights may be spread over them; one writes.
    """
    trainer.save_model(str(folder))
    if not is_main():
        return folder
    tokenizer.save_pretrained(str(folder))
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)
    digests = {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name != CARD}
    card = read_card(folder.parent / CARD).model_copy(update={"digests": digests})
    write_text(folder / CARD, card.to_yaml())
    return folder


def card(config: TrlConfig, certificate: Mapping[str, Any]) -> Card:
    """The checkpoint's provenance."""
    import trl

    aem = config.aem.model_dump() if config.aem else {}
    settings = config.model_dump(mode="json", exclude_defaults=True)
    adapter: dict[str, Any] = {"weights": "lora", "base_model": config.start} if config.lora else {}
    return Card(
        name=config.name,
        path=".",
        **adapter,
        parent=parent_of(config.start),
        method=Method(
            kind="aem" if config.aem else "baseline",
            base=f"trl {trl.__version__} {config.arguments.get('loss_type', 'grpo')}",
            parameters={**aem, "lr": config.learning_rate},
        ),
        training=Training(
            run=f"{config.name}-seed{config.seed}",
            step=config.steps,
            seeds=(config.seed,),
            config=settings,
            certificate=certificate,
        ),
        serving=Serving(max_model_len=config.context),
        scaffold=scaffold(EpisodeLimits(config.max_steps, config.max_reply, config.context)),
        sampling={"temperature": config.temperature, "max_tokens": config.max_reply, "logprobs": 20},
    )
