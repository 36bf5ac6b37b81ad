"""What `test_engine_verl.py` runs in an environment that has verl: `python inside_verl.py NAME` prints a line of JSON.

Whole verl is too heavy to import twice, and belongs to no test environment; so each function here does all that needs
one import of it, and the tests look at the answers.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_batch import shared_batch

ROOT = Path(__file__).parents[2]
OUT = Path("/nowhere")


def config(**overrides: Any) -> Any:
    """The shipped recipe, with overrides by dotted name as on the command line."""
    from aem_harness.training.config import find_config, load_config

    return load_config(find_config("deepswe-aem"), [f"{key}={json.dumps(value)}" for key, value in overrides.items()])


def composed(**overrides: Any) -> Any:
    from aem_harness.training.engines.verl_run import compose

    return compose(config(**overrides), OUT)


def estimators() -> dict[str, Any]:
    """verl's own advantages of the shared batch, on a DataProto, and the same by way of the plug-in."""
    from verl import DataProto
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    from aem_harness.training.aem import AemConfig
    from aem_harness.training.engines import verl_plugin

    batch, answers = shared_batch(), {}
    rewards = torch.zeros_like(batch.mask_B_T)
    rewards[:, 0] = batch.rewards_B
    uid = np.array(batch.groups, dtype=object)
    for base in ("grpo", "rloo"):
        data = DataProto.from_dict(
            tensors={"token_level_rewards": rewards, "response_mask": batch.mask_B_T}, non_tensors={"uid": uid}
        )
        keys = [f"{group}_{row}_0" for row, group in enumerate(batch.groups)]
        plain = compute_advantage_for_multi_trajectories(data, keys, base).batch["advantages"]
        fields = {
            "entropy": batch.entropies_B_T,
            "response_mask": batch.mask_B_T,
            "old_log_probs": batch.logprobs_B_T,
            "uid": uid,
        }
        registered, _ = get_adv_estimator_fn("aem")(
            token_level_rewards=rewards,
            response_mask=batch.mask_B_T,
            index=uid,
            entropies=batch.entropies_B_T,
            base=base,
        )
        answers[base] = {
            "plain": plain.tolist(),
            "plug-in": verl_plugin.modulate_nested(plain, fields, AemConfig()).advantages_B_T.tolist(),
            "off": verl_plugin.modulate_nested(plain, fields, AemConfig(lam=0.0)).advantages_B_T.tolist(),
            "alphas": verl_plugin.modulate_nested(plain, fields, AemConfig()).alphas_N.tolist(),
            "estimator": registered.tolist(),
        }
    return answers


def trainer() -> dict[str, Any]:
    """The advantage step of verl's own trainer and of ours, on verl's TransferQueue; the rest of them needs GPUs."""
    import ray
    import transfer_queue
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from aem_harness.training.engines import verl_plugin

    batch, answers = shared_batch(), {}
    # The queue's storage asks for logical CPUs, and waits for ever where there are fewer.
    ray.init(num_cpus=64, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    try:
        whole = composed(**{"verl.algorithm.adv_estimator": "grpo"})
        whole.transfer_queue.enable = True
        whole.transfer_queue.backend.SimpleStorage.num_data_storage_units = 1
        transfer_queue.init(whole.transfer_queue)
        keys = [f"{group}_{row}_0" for row, group in enumerate(batch.groups)]
        rows = [
            {
                "response_mask": batch.mask_B_T[row, :length].long(),
                "entropy": batch.entropies_B_T[row, :length],
                "old_log_probs": batch.logprobs_B_T[row, :length],
                "rm_scores": torch.tensor([0.0] * (length - 1) + [float(batch.rewards_B[row])]),
                "uid": group,
            }
            for row, (group, length) in enumerate(zip(batch.groups, batch.lengths, strict=True))
        ]
        for mode in ("sync", "aem_sync"):
            meta = transfer_queue.kv_batch_put(keys=keys, partition_id=mode, fields=list_of_dict_to_tensordict(rows))
            cls = get_trainer_cls(mode)
            made, metrics = object.__new__(cls), {}
            made.config, made.aem = whole, verl_plugin.method_of(whole)
            cls._compute_advantage(made, meta, metrics)
            got = transfer_queue.kv_batch_get(keys=keys, partition_id=mode, select_fields=["advantages"])
            answers[mode] = {"advantages": got["advantages"].to_padded_tensor(0.0).tolist(), "metrics": metrics}
    finally:
        ray.shutdown()
    return answers


def dry() -> dict[str, Any]:
    """The check of the shipped recipe, then on a verl that lost hooks, then of settings that verl does not know."""
    import transfer_queue
    import verl.trainer.ppo.v1.trainer_base as trainers

    from aem_harness.harness.errors import ConfigError
    from aem_harness.training.engines import verl_run

    def wrong(**overrides: Any) -> dict[str, str]:
        return {f.what: f.problem for f in verl_run.check(config(**overrides), OUT) if f.problem and f.hook}

    answers: dict[str, Any] = {"whole": wrong(), "command": verl_run.command(config(), OUT)}
    answers["here"] = [f.what for f in verl_run.check(config(), OUT) if f.problem and not f.hook]
    put, old = transfer_queue.kv_batch_put, trainers.PPOTrainer._compute_old_log_prob
    del transfer_queue.kv_batch_put
    trainers.PPOTrainer._compute_old_log_prob = lambda self, batch, metrics: batch
    answers["robbed"] = wrong()
    transfer_queue.kv_batch_put, trainers.PPOTrainer._compute_old_log_prob = put, old
    answers["unknown trainer"] = wrong(**{"verl.trainer.v1.trainer_mode": "aem_other"})
    try:
        wrong(**{"verl.actor_rollout_ref.actor.clip_ratio_hihg": 0.3})
    except ConfigError as error:
        answers["misspelt"] = str(error)
    recipe = composed()
    actor = recipe.actor_rollout_ref.actor
    answers["recipe"] = {
        "estimator": recipe.algorithm.adv_estimator,
        "batch": [recipe.data.train_batch_size, recipe.actor_rollout_ref.rollout.n, actor.ppo_mini_batch_size],
        "steps": recipe.trainer.total_training_steps,
        "clip": [actor.clip_ratio_low, actor.clip_ratio_high],
        "mean": actor.loss_agg_mode,
        "norm": actor.loss_scale_factor,
        "entropy and KL": [actor.entropy_coeff, actor.use_kl_loss, recipe.algorithm.use_kl_in_reward],
        "compact": recipe.aem.sandbox.compact_filtering,
        "method": [recipe.aem.method.lam, recipe.aem.method.min_range],
    }
    return answers


def numbers() -> dict[str, Any]:
    """What needs one import of verl and nothing else."""
    return {"estimators": estimators(), "dry run": dry()}


def loop() -> dict[str, Any]:
    """Rollouts of the agent loop in real containers, under a server that says what it is told to."""
    from transformers import AutoTokenizer
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.workers.rollout.replica import TokenOutput

    from aem_harness.harness.instances.load import load_tasks
    from aem_harness.training.engines.verl_loop import SandboxAgentLoop

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "aem_checkpoints/tiny-base")
    task = load_tasks("tiny")[0]
    mend = f"```bash\ngit apply <<'EOF'\n{task.patch}EOF\n```"
    hand_in = "```bash\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```"

    class ScriptedServer:
        """Answers in ids, as verl's rollout servers do, one model version later each time."""

        def __init__(self, replies: list[str]) -> None:
            self.replies, self.read = list(replies), []

        async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: Any, **_: Any) -> Any:
            self.read.append(list(prompt_ids))
            ids = [*tokenizer.encode(self.replies.pop(0), add_special_tokens=False), tokenizer.eos_token_id]
            facts = {"min_global_steps": len(self.read), "max_global_steps": len(self.read)}
            return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=facts)

    answers: dict[str, Any] = {}
    for name, replies, steps in (
        ("mended", ["No command.", mend, hand_in], 5),
        ("left as it was", [hand_in], 5),
        ("at its limit", ["```bash\nls\n```", mend], 2),
    ):
        whole = composed(**{"sandbox.agent": "bash", "sandbox.agent_options": {"prompts": "tiny-1", "steps": steps}})
        server = ScriptedServer(replies)

        async def rollout(whole: Any = whole, server: Any = server) -> Any:
            made = SandboxAgentLoop(
                trainer_config=DictConfigWrap(whole),
                server_manager=server,
                tokenizer=tokenizer,
                processor=None,
                dataset_cls=None,
                data_config=DictConfigWrap(whole.data),
            )
            return await made.run({"temperature": 1.0}, task=task.model_dump_json(), raw_prompt=[])

        output = asyncio.run(rollout())
        everything = output.prompt_ids + output.response_ids
        sampled = [token for token, own in zip(output.response_ids, output.response_mask, strict=True) if own]
        answers[name] = {
            "said": replies,
            "sampled": tokenizer.decode(sampled, skip_special_tokens=True),
            "spans": len("".join(map(str, output.response_mask)).replace("0", " ").split()),
            "reward": output.reward_score,
            "reward by token": output.as_dict()["rm_scores"].tolist()[-1:],
            "logprobs": sorted({*output.response_logprobs}),
            "lengths": [len(output.response_ids), len(output.response_mask), len(output.response_logprobs)],
            "read is a prefix": [everything[: len(read)] == read for read in server.read],
            "versions": [output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]],
            "shown": tokenizer.decode(everything),
        }
    return answers


def partial_groups() -> dict[str, Any]:
    """What verl's buffer, and ours, would train on of four groups of eight: one that lost a rollout, one that lost
    all, a whole one, and one that is still played."""
    import verl.trainer.ppo.v1.replay_buffer as buffers
    from omegaconf import OmegaConf

    from aem_harness.training.engines.verl_plugin import WholeGroups

    groups = {"partial": ("failure", 7), "lost": ("failure", 0), "whole": ("finished", 8), "played": ("running", 3)}
    told: dict[str, Any] = {"train": {}}
    for uid, (status, rollouts) in groups.items():
        told["train"][uid] = {"is_prompt": True, "status": status, "global_steps": 1}
        told["train"] |= {f"{uid}_{number}_0": {"status": "success"} for number in range(rollouts)}
    buffers.tq.kv_list = lambda *_, **__: told
    answers = {}
    for kind in (buffers.ReplayBuffer, WholeGroups):
        buffer = kind(
            "sync", OmegaConf.create({}), None, "drop", OmegaConf.create({}), refill_fn=lambda _: None,
            train_batch_size=2, gen_batch_size=1, max_inflight_gen_batches=2, sync_refill_failed_groups=True,
        )  # fmt: skip
        buffer._sync_metadata_from_transfer_queue()
        reasons = buffer._terminal_eviction_reasons(1, "train")
        answers[kind.__name__] = {
            "evicted": sorted(reasons[2]),
            "sampleable": sorted(buffer._sampleable_terminal_keys("train", reasons)),
        }
    return answers


def scale() -> dict[str, Any]:
    """What the dry run counts of the 64-GPU recipe, and of the same with one setting spoilt each."""
    import concurrent.futures

    import ray
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

    from aem_harness.harness.errors import PolicyFault
    from aem_harness.training.engines import verl_loop, verl_plugin, verl_run

    def told(**overrides: Any) -> list[str]:
        found = verl_run.check(config(**{"sandbox.instances": "sample", **overrides}), OUT)
        kinds = {True: "stops", False: "advice"}
        return [f"{kinds[one.hook]}: {one.problem}" for one in found if one.problem and (one.hook or one.advice)]

    actor = "verl.actor_rollout_ref.actor"
    spoilt = {
        "as it is": {},
        "context": {"verl.actor_rollout_ref.rollout.max_model_len": 1000},
        "tokens a GPU": {f"{actor}.ppo_max_token_len_per_gpu": 4000},
        "whitened": {"verl.algorithm.adv_estimator": "reinforce_plus_plus_baseline"},
        "never saved": {"verl.trainer.save_freq": -1},
        "all kept": {"verl.trainer.max_actor_ckpt_to_keep": None},
        "evaluated on training rows": {"verl.trainer.test_freq": 5},
        "schedule": {"gate": {"every": 10, "set": "tiny"}, f"{actor}.optim.lr_scheduler_type": "cosine"},
        "few workers": {"verl.actor_rollout_ref.rollout.agent.num_workers": 4},
        "uneven workers": {"verl.actor_rollout_ref.rollout.agent.num_workers": 12},
        "crowd": {"sandbox.containers": 0},
    }  # fmt: skip
    answers: dict[str, Any] = {name: told(**overrides) for name, overrides in spoilt.items()}
    held_out = config(**{"sandbox.instances": "sample", "sandbox.validation": "sample"})
    answers["held out"] = [one.problem for one in verl_run.check(held_out, OUT) if one.what.startswith("instances")]

    # Prompts that are drawn again, one at a time, through verl's own manager and our trainer's hook.
    class Worker:
        def __init__(self, name: int) -> None:
            self.generate_sequences, self.name = self, name

        def remote(self, _: Any) -> int:
            seen.append(self.name)
            return self.name

    class Trainer(verl_plugin.ModulatedTrainer.__mro__[1]):  # verl's own, which only hands the batch on
        def __init__(self) -> None: ...
        def _submit_batch_to_rollout(self, batch: Any) -> int:
            self.agent_loop_manager.generate_sequences(batch)
            return len(batch)

    kind = type(
        "Hooked", (verl_plugin.ModulatedTrainer, Trainer), {"__init__": Trainer.__init__, "__abstractmethods__": ()}
    )
    ray.get = lambda wanted: wanted
    for name, cls in (("verl alone", Trainer), ("plug-in", kind)):
        cls.__abstractmethods__ = frozenset()
        seen: list[int] = []
        trainer = cls()
        trainer.agent_loop_manager = object.__new__(AgentLoopManagerTQ)
        trainer.agent_loop_manager.agent_loop_workers = [Worker(number) for number in range(3)]
        for _ in range(4):
            trainer._submit_batch_to_rollout(torch.zeros(1, 2))
        answers[name] = seen
    try:
        verl_loop.within(concurrent.futures.Future(), 0.05)
    except PolicyFault as fault:
        answers["silent server"] = str(fault)
    return answers


def merged() -> dict[str, Any]:
    """A run that left FSDP's shards and no Hugging Face weights, taken to a registered checkpoint by verl's merger."""
    import shutil
    import tempfile

    from safetensors.torch import load_file

    from aem_harness.aem_checkpoints import adding
    from aem_harness.aem_checkpoints.registry import Registry
    from aem_harness.training.engines import verl_run
    from aem_harness.training.folder import enter

    start = ROOT / "aem_checkpoints" / "tiny-base"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = config(name="mine", start=str(start), steps=7)
        enter(out, settings, verl_run.card(settings, {"rows": 2}))
        actor = out / "verl" / "global_step_7" / "actor"
        (actor / "huggingface").mkdir(parents=True)
        for file in start.iterdir():
            if file.suffix != ".safetensors" and file.name != "card.yaml":
                shutil.copy(file, actor / "huggingface")
        weights = load_file(start / "model.safetensors")
        torch.save(weights, actor / "model_world_size_1_rank_0.pt")
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
        done = verl_run.finish(out)
        (card,) = adding.cards("mine", {"path": str(done)}, Path(folder) / "registry")
        adding.add(card, Path(folder) / "registry")
        entry = Registry(Path(folder) / "registry").get("mine")
        found: dict[str, Any] = {}
        for file in done.glob("*.safetensors"):
            found |= load_file(file)
        return {
            "equal": all(torch.equal(found[name].float(), weights[name].float()) for name in weights),
            "step": entry.card.training.step,
            "agent": entry.card.scaffold.agent,
            "certificate": dict(entry.card.training.certificate),
            "problems": entry.problems(),
        }


if __name__ == "__main__":
    print("ANSWER " + json.dumps(globals()[sys.argv[1]]()))
