"""The real vLLM serving a tiny checkpoint and an adapter on it, driven through real containers and graded."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aem_harness.aem_checkpoints.fingerprint import fingerprint
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from aem_harness.cli import app
from aem_harness.harness.compare import drift
from aem_harness.harness.compare.outcomes import combine, read_run
from aem_harness.harness.io import read_json
from aem_harness.harness.run.store import read_journal
from tests.checkpoints.processes import resident, sockets, until

pytestmark = [
    pytest.mark.extended,
    pytest.mark.vllm,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.usefixtures("engine", "vllm"),
]

IN_FLIGHT = 64


@pytest.fixture(scope="module")
def server(registry: Path) -> Iterator[Server]:
    """One vLLM for two arms: the checkpoint, and the adapter on it."""
    known = Registry(registry)
    with Server([known.get("tiny"), known.get("tiny-lora")], known, registry / "server.log") as running:
        yield running


def run(server: Server, registry: Path, checkpoint: str, out: Path, *more: str) -> list[dict[str, Any]]:
    words = ["run", "--registry", str(registry), "--checkpoint", checkpoint, "--endpoint", server.url]
    words += ["-c", "stop_alike=0"]  # 512 tokens and no training: nearly every reply is a format error
    app([*words, "--set", "sample", "--out", str(out), *more], standalone_mode=False)
    return list(read_journal(out))


def replies(out: Path) -> list[dict[str, Any]]:
    """What is recorded of every reply of the model in a run."""
    extras = [
        message["extra"] for path in out.glob("rollouts/*/*/*.traj.json") for message in read_json(path)["messages"]
    ]
    return [extra for extra in extras if "completion_tokens" in extra]


def test_four_seeds_of_the_sample_set_with_64_rollouts_in_flight(server, registry, tmp_path, unique, record_property):
    run(server, registry, "tiny", tmp_path / "warm-up", "--slice", "0:2", "-w", "2")  # imports, pools, images
    out = tmp_path / unique("64-in-flight")  # names the containers too
    threads, before, memory = set(threading.enumerate()), sockets(), resident()
    peak, busiest, done = memory, 0, threading.Event()

    def watch() -> None:
        nonlocal peak, busiest
        while not done.wait(0.05):
            peak = max(peak, resident())
            busiest = max(busiest, sum(thread.name.startswith("rollout") for thread in threading.enumerate()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        events = run(server, registry, "tiny", out, "-k", "4", "-w", str(IN_FLIGHT))
    finally:
        done.set()
        watcher.join()
    rollouts = [event for event in events if event["event"] == "rollout"]
    grades = [event for event in events if event["event"] == "grade"]
    assert len(rollouts) == len(grades) == 4 * 19
    assert not [event["fault"] for event in rollouts if event["fault"]]
    assert {grade["outcome"] for grade in grades} <= {"resolved", "unresolved", "not_applied", "empty_patch"}
    assert all(rollout["steps"] >= 1 and 4 < rollout["mean_entropy"] < 6.3 for rollout in rollouts)  # ln 512 = 6.24
    assert busiest == IN_FLIGHT
    share = (peak - memory) / IN_FLIGHT / 2**20
    record_property("MiB_per_trajectory_in_flight", round(share, 2))
    print(f"{share:.2f} MiB per trajectory in flight ({memory >> 20} MiB before, {peak >> 20} MiB at the peak)")
    assert share < 8
    assert until(lambda: set(threading.enumerate()) <= threads), set(threading.enumerate()) - threads
    assert until(lambda: sockets() <= before), (before, sockets())
    labelled = ["docker", "ps", "-aq", "--filter", f"label=aem.run={out.name}"]
    assert subprocess.run(labelled, capture_output=True, text=True, check=True).stdout == ""


def test_seeds_give_different_replies_and_every_token_has_a_log_probability(server, registry, tmp_path):
    run(server, registry, "tiny", tmp_path, "--slice", "0:1", "-k", "2", "-w", "2")
    first, second = (
        read_json(next((tmp_path / "rollouts").glob(f"*/{seed}/*.traj.json")))["messages"] for seed in (0, 1)
    )
    said = [
        [message["extra"]["tokens"] for message in messages if "tokens" in message["extra"]]
        for messages in (first, second)
    ]
    assert said[0] != said[1]
    for reply in replies(tmp_path):
        assert len(reply["tokens"]) == len(reply["logprobs"]) == len(reply["entropies"]) == reply["completion_tokens"]
        assert reply["surprisal"] == pytest.approx(-sum(reply["logprobs"]), abs=1e-3)
        assert "V=" in reply["entropy_method"]
        assert 0 <= reply["server_queue_seconds"] < reply["model_seconds"]
        assert reply["gpu_seconds"] is None  # this build has none


def test_two_arms_on_one_server_differ_in_their_weights_alone(server, registry, tmp_path):
    known = Registry(registry)
    base, lora = (fingerprint(server.url, name, known.get(name), known) for name in ("tiny", "tiny-lora"))
    assert base["canary"] != lora["canary"]
    assert base["weights"] != lora["weights"]
    for key in ("server", "template", "tokenizer"):
        assert base[key] == lora[key]
    assert base["server"]["context"] == 8192
    assert re.fullmatch(r"\d+\.\d+.*", base["server"]["version"])
    options = ["--slice", "0:2", "-c", "sampling.logprobs=0", "-c", "agent_options.steps=2"]
    for name in ("tiny", "tiny-lora"):
        events = run(server, registry, name, tmp_path / name, *options)
        assert sum(event["event"] == "grade" for event in events) == 2
    table = combine([read_run(tmp_path / "tiny"), read_run(tmp_path / "tiny-lora")])
    tables = {arm: table.table[table.table["arm"] == arm] for arm in ("tiny", "tiny-lora")}
    assert [line for line in drift.warnings(tables, table.facts) if "fingerprint" in line] == []
    path = tmp_path / "tiny-lora" / "run.json"
    changed = read_json(path)
    changed["fingerprint"]["server"] |= {"version": "0.1.0"}
    changed["fingerprint"]["template"] = "sha256:0"
    path.write_text(json.dumps(changed))
    facts = combine([read_run(tmp_path / "tiny"), read_run(tmp_path / "tiny-lora")]).facts
    loud = " ".join(drift.warnings(tables, facts))
    assert "fingerprint.server.version differs" in loud
    assert "fingerprint.template differs" in loud


def test_determinism_is_measured_on_the_prefixes_of_a_run(server, registry, tmp_path, capsys):
    run(server, registry, "tiny", tmp_path, "--slice", "0:3")
    capsys.readouterr()
    words = ["--model", "tiny", "--run", str(tmp_path), "--concurrency", "1,8", "--max-tokens", "16"]
    app(["determinism", "--endpoint", server.url, *words], standalone_mode=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = [(row[0], row[1]) for row in rows if row and row[0] in ("1", "8")]
    assert counts == [("1", "3"), ("8", "9")]


def test_a_shipped_policy_mends_held_out_bugs_in_containers_and_its_entropies_are_recorded(tmp_path):
    words = ["--checkpoint", "tiny-aem", "--set", "tiny", "--slice", "0:12", "-k", "2", "-w", "4"]
    words += ["--out", str(tmp_path / "run")]
    app(["run", *words], standalone_mode=False)
    events = list(read_journal(tmp_path / "run"))
    outcomes = [event["outcome"] for event in events if event["event"] == "grade"]
    assert len(outcomes) == 24
    assert outcomes.count("resolved") >= 3
    assert all(0 <= event["mean_entropy"] < 3 for event in events if event["event"] == "rollout")
