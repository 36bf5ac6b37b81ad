"""A server's life: ready, crashed, restarted once, failed, and gone with us however we end."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from aem_harness.aem_checkpoints import client, serving
from aem_harness.aem_checkpoints.adding import add
from aem_harness.aem_checkpoints.card import Card, Serving
from aem_harness.aem_checkpoints.command import Program, arguments, explain, gpus, options, together
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from aem_harness.agents.policy import EndpointPolicy, Retry
from aem_harness.harness.errors import ConfigError, PolicyFault
from tests.checkpoints.processes import group, until

PROGRAM = Path(__file__).with_name("serve_program.py")


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `vllm` of these tests."""
    command = tmp_path / "vllm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("AEM_VLLM", str(command))
    for name in ("AEM_REGISTRY", "AEM_SERVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    folder = tmp_path / "registry"
    (folder / "w").mkdir(parents=True)
    add(Card(name="tiny", path="w", serving=Serving(max_model_len=64)), folder)
    return Registry(folder)


@pytest.fixture
def server(registry: Registry, tmp_path: Path) -> Iterator[Server]:
    with Server([registry.get("tiny")], registry, tmp_path / "server.log") as running:
        yield running


def tell(server: Server, what: str) -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}/{what}", data=b""), timeout=5)


def events(server: Server) -> list[str]:
    return [event["event"] for event in server.events]


def pid_of(server: Server) -> int:
    assert server.pid is not None
    return server.pid


def test_nothing_is_left_after_the_block(registry, tmp_path):
    threads = set(threading.enumerate())  # some of earlier tests may end meanwhile
    with Server([registry.get("tiny")], registry, tmp_path / "server.log") as server:
        assert len(group(pid_of(server))) >= 3  # guard, server, worker
    assert group(pid_of(server)) == {}
    assert set(threading.enumerate()) <= threads
    assert events(server) == ["started", "stopped"]


def test_a_crash_is_answered_by_one_restart_at_the_same_address(server):
    first = pid_of(server)
    tell(server, "die")
    assert until(lambda: "restarted" in events(server))
    server.await_ready()
    assert group(first) == {}
    assert urllib.request.urlopen(f"{server.url}/models", timeout=5).status == 200
    tell(server, "die")
    assert until(lambda: server.failed)
    with pytest.raises(PolicyFault, match="crashed again after its restart"):
        server.await_ready()
    assert events(server) == ["started", "crashed", "restarted", "crashed"]


def test_a_dead_engine_behind_a_living_front_is_a_crash_too(server):
    tell(server, "engine-dies")
    assert until(lambda: "restarted" in events(server))
    server.await_ready()
    assert "RuntimeError: the engine's own words" in server.events[1]["detail"]


def test_a_server_that_lives_on_but_stopped_listening_is_restarted(server):
    first = pid_of(server)
    tell(server, "stop-listening")
    assert until(lambda: "restarted" in events(server))
    server.await_ready()
    assert "no longer accepts connections" in server.events[1]["detail"]
    assert group(first) == {}
    assert urllib.request.urlopen(f"{server.url}/models", timeout=5).status == 200


def test_a_server_that_hangs_is_restarted_when_it_has_been_silent_for_long(server, monkeypatch):
    monkeypatch.setattr(client, "HEALTH_SECONDS", 1.0)
    for name, value in {"SILENT_SECONDS": 3.0, "HEALTH_EVERY": 2, "STOP_SECONDS": 0.0}.items():
        monkeypatch.setattr(serving, name, value)
    os.killpg(server.pid, signal.SIGSTOP)
    assert until(lambda: "restarted" in events(server), 60)
    server.await_ready()
    assert "it has not answered for" in server.events[1]["detail"]
    assert urllib.request.urlopen(f"{server.url}/models", timeout=5).status == 200


def test_calls_wait_for_a_restart_and_use_up_no_attempts(registry, tmp_path):
    folder = registry.get("tiny").folder
    with Server([registry.get("tiny")], registry, tmp_path / "server.log") as server:
        retry = Retry(attempts=4, first=0.3)
        with EndpointPolicy("tiny", [server.url], retry=retry, await_server=server.await_ready) as policy:
            (folder / "breaks").write_text("RuntimeError: will not start again")
            tell(server, "die")
            with pytest.raises(PolicyFault, match="will not start again"):
                policy.complete([{"role": "user", "content": "?"}])


def test_a_waiting_call_is_woken_when_the_server_is_stopped(server):
    heard: list[str] = []

    def wait() -> None:
        try:
            server.await_ready()
        except PolicyFault as fault:
            heard.append(str(fault))

    server._settled.clear()
    thread = threading.Thread(target=wait)
    thread.start()
    server.stop()
    thread.join(timeout=10)
    assert heard == ["the server was stopped during a call"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_goes_with_its_owner_however_that_ends(registry, tmp_path, how):
    owner = tmp_path / "owner.py"
    owner.write_text(
        textwrap.dedent(f"""
        import signal, sys, time
        from pathlib import Path
        from aem_harness.aem_checkpoints.registry import Registry
        from aem_harness.aem_checkpoints.serving import Server
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        registry = Registry(Path({str(tmp_path / "registry")!r}))
        with Server([registry.get("tiny")], registry, Path({str(tmp_path / "server.log")!r})) as server:
            print(server.pid, flush=True)
            time.sleep(600)
        """)
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(owner)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert process.stdout is not None
    number = int(process.stdout.readline())
    assert len(group(number)) >= 3
    process.send_signal(how)
    process.wait(timeout=30)
    process.stdout.close()
    assert until(lambda: not group(number), 20), group(number)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "raise serving.tensor_parallel_size"),
        ("ValueError: No available memory for the cache blocks.", "not enough memory for the context"),
        ("ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8)", "own context"),
        ("OSError: nobody/nothing is not a valid model identifier", "check path, hub and revision"),
        ("vllm: error: unrecognized arguments: --enforce-eagre", "--enforce-eagre"),
        ("KeyError: 'invalid tool call parser: x'", "serving.tool_call_parser"),
        ("OSError: [Errno 98] Address already in use", "--port"),
    ],
)
def test_a_server_that_does_not_start_says_what_to_do(registry, tmp_path, said, remedy):
    folder = registry.get("tiny").folder
    (folder / "breaks").write_text(f"INFO starting\n{said}\n")
    with pytest.raises(PolicyFault, match="vLLM did not start") as caught:
        Server([registry.get("tiny")], registry, tmp_path / "server.log").__enter__()
    assert remedy in str(caught.value)
    assert str(tmp_path / "server.log") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_error_that_says_something_is_the_reason():
    log = "RuntimeError: the cause\nlib.EngineDeadError: EngineCore encountered an issue\nINFO bye\n"
    assert explain(log) == "RuntimeError: the cause"
    assert "killed from outside" in explain("INFO ready\nserver ended with exit status 137\n")
    assert explain("") == "no output"


def test_an_engine_that_was_killed_leaves_only_warnings_and_the_complaint_of_its_front():
    warning = "(APIServer) WARNING Found ulimit: `OSError: [Errno 24] Too many open files`"
    assert "killed from outside" in explain(f"{warning}\nERROR lib.EngineDeadError: see the root cause\n")


# --- command lines --------------------------------------------------------------------------------------------------


def words(registry: Registry, *names: str) -> str:
    return " ".join(arguments([registry.get(name) for name in names], registry, Program("vLLM", ("vllm", "serve"))))


@pytest.fixture
def family(tmp_path: Path) -> Registry:
    """Two full checkpoints, and three adapters on one of them."""
    folder = tmp_path / "family"
    serving = Serving(max_model_len=64, tool_call_parser="hermes", chat_template="chat.jinja", dtype="bfloat16")
    add(Card(name="base", path="base", serving=serving), folder)
    add(Card(name="hub", hub="org/model", revision="abc"), folder)
    for name, rank in (("a", 8), ("b", 24), ("c", 16)):
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text(f'{{"r": {rank}}}')
        flags = Serving(flags={"max-num-seqs": 4, "enable-prefix-caching": False}) if name == "c" else Serving()
        add(Card(name=name, path=name, weights="lora", base_model="base", serving=flags), folder)
    return Registry(folder)


def test_full_weights_are_served_under_their_name_with_what_the_card_says(family):
    said = words(family, "base")
    assert f"{family.folders[0]}/base --served-model-name base --chat-template {family.folders[0]}/chat.jinja" in said
    for part in ("--max-model-len 64", "--dtype bfloat16", "--enable-auto-tool-choice --tool-call-parser hermes"):
        assert part in said
    assert words(family, "hub") == "org/model --served-model-name hub --revision abc --generation-config vllm"


def test_adapters_share_a_server_with_their_base_and_take_over_its_settings(family):
    said = words(family, "base", "a", "b")
    assert said.startswith(f"{family.folders[0]}/base --served-model-name base --enable-lora --max-loras 2")
    assert f"--max-lora-rank 32 --lora-modules a={family.folders[0]}/a b={family.folders[0]}/b" in said
    assert "--max-model-len 64" in words(family, "a")
    assert "--no-enable-prefix-caching" in words(family, "c")
    assert options(family.get("c"), family)["tool-call-parser"] == "hermes"


def test_on_the_cpu_build_one_slot_for_adapters_stays_empty(family):
    """That build takes the last slot for "no adapter" and would answer for the base with an adapter on top."""
    entries = [family.get("base"), family.get("a"), family.get("b")]
    said = " ".join(arguments(entries, family, Program("vLLM", ("vllm", "serve"), cpu=True)))
    assert "--max-loras 3 " in said
    assert "--max-loras 2 " in words(family, "base", "a", "b")


def test_a_server_has_room_for_the_largest_rank_of_an_adapters_pattern(family):
    """Some layers may have more than `r`: vLLM refuses an adapter that is larger than it was told."""
    config = family.get("a").folder / "adapter_config.json"
    config.write_text('{"r": 8, "rank_pattern": {"q_proj": 60, "k_proj": 4}}')
    assert "--max-lora-rank 64" in words(family, "a", "c")


def test_gpus_are_those_of_vllm_s_parallelism_and_of_strangers_what_the_card_says(family, tmp_path):
    vllm, cpu = Program("vLLM", ("vllm",)), Program("vLLM", ("vllm",), cpu=True)
    assert gpus(family.get("base"), family, vllm) == 1
    assert gpus(family.get("base"), family) is None
    serving = Serving(tensor_parallel_size=4, flags={"pipeline-parallel-size": 2})
    add(Card(name="wide", path="wide", serving=serving), family.folders[0])
    assert gpus(family.get("wide"), family, vllm) == gpus(family.get("wide"), family) == 8
    assert gpus(family.get("wide"), family, cpu) is None
    assert gpus(family.get("wide"), family, Program("transformers", ())) is None


def test_full_checkpoints_need_a_server_each(family):
    with pytest.raises(ConfigError, match="need a server each"):
        words(family, "base", "hub")
    groups = together([family.get(name) for name in ("hub", "a", "base", "c")], family)
    assert [[entry.card.name for entry in group] for group in groups] == [["hub"], ["a", "base", "c"]]
