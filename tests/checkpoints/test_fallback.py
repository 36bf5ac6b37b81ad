"""The server for small checkpoints where vLLM is not installed: the real thing, with the shipped ones."""

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from aem_harness.aem_checkpoints import client
from aem_harness.aem_checkpoints.adding import add, cards
from aem_harness.aem_checkpoints.card import Card, Serving
from aem_harness.aem_checkpoints.command import find_program
from aem_harness.aem_checkpoints.fingerprint import fingerprint, logprobs_are, stored_dtype
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.aem_checkpoints.serving import Server
from aem_harness.agents.policy import ContextOverflow, EndpointPolicy, Sampling
from aem_harness.agents.refusals import context_size, heeds_tools, token_count
from aem_harness.api.serving import connect
from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.io import read_json
from aem_harness.harness.run.store import read_journal
from tests.checkpoints.processes import group

torch = pytest.importorskip("torch", reason="the fallback server runs on torch")

MESSAGES = [
    {"role": "system", "content": "Fix the bug.\n"},
    {"role": "user", "content": "lib/turn_rope.py is wrong: turn_rope(4, -2) gives 22, want 20\n"},
]


@pytest.fixture(scope="module", autouse=True)
def no_vllm() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEM_SERVER", "transformers")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("AEM_REGISTRY", raising=False)
        yield


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The shipped checkpoints, an adapter on one of them, and the same as a compiled policy names its tensors."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("registry")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(Registry().get("tiny-aem").folder)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder / "weights")
    adapted.save_pretrained(folder / "compiled")
    weights = folder / "compiled" / "adapter_model.safetensors"
    tensors = {
        name.replace(".model.model.", ".model._orig_mod.model."): one for name, one in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    settings = weights.with_name("adapter_config.json")
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "init_lora_weights": True}))
    for name, place in {"adapted": "weights", "compiled": "compiled"}.items():
        for card in cards(name, {"path": str(folder / place), "base_model": "tiny-aem"}, folder):
            add(card, folder)
    return Registry(folder)


@pytest.fixture(scope="module")
def server(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    entries = [registry.get(name) for name in ("tiny-aem", "adapted", "compiled")]
    with Server(entries, registry, log) as running:
        assert running.program.name == "transformers"
        yield running
    assert group(running.pid or 0) == {}


def chat(server: Server, **more: object) -> dict:
    body = {"model": "tiny-aem", "messages": MESSAGES, "max_tokens": 40, "logprobs": True, "top_logprobs": 20, **more}
    return dict(client.post(f"{server.url}/chat/completions", body))


def tokens(answer: dict) -> list[str]:
    return [entry["token"] for entry in answer["choices"][0]["logprobs"]["content"]]


def reference(folder: Path, prompt: list[int], sampled: list[int]):
    """(T, V) log-probabilities of a conversation from one plain pass of transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    with torch.no_grad():
        return model(torch.tensor([prompt + sampled])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_those_of_a_plain_pass_over_the_conversation(server, registry, temperature):
    from transformers import AutoTokenizer

    folder = registry.get("tiny-aem").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    others = [{"messages": MESSAGES + MESSAGES[:1] * extra, "seed": 9} for extra in (3, 1, 0, 7)]
    with ThreadPoolExecutor(5) as threads:  # among other requests, of other lengths
        answers = list(threads.map(lambda more: chat(server, temperature=temperature, **more), [{"seed": 5}, *others]))
    answer = answers[0]
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    content = answer["choices"][0]["logprobs"]["content"]
    sampled = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(entry["token"]))[0] for entry in content]
    expected = reference(folder, prompt, sampled)
    assert answer["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(sampled),
        "total_tokens": len(prompt) + len(sampled),
    }
    for row, entry, token in zip(expected, content, sampled, strict=True):
        assert entry["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert values == pytest.approx(row.topk(20).values.tolist(), abs=1e-4)
        if temperature == 0:
            assert entry["token"] == entry["top_logprobs"][0]["token"]
    text = tokenizer.decode(sampled, skip_special_tokens=True)
    assert answer["choices"][0]["message"]["content"] == text
    assert tokens(answer)[-1] == "<|end|>"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_seed_gives_the_same_reply_alone_and_among_others_and_another_seed_another(server):
    alone = [tokens(chat(server, seed=seed, temperature=4.0)) for seed in range(8)]
    with ThreadPoolExecutor(16) as threads:
        among = list(threads.map(lambda seed: tokens(chat(server, seed=seed % 8, temperature=4.0)), range(32)))
    assert among == alone * 4
    assert len({tuple(one) for one in alone}) > 4


def test_sampling_follows_the_distribution_and_its_cuts(server):
    """200 first tokens at a high temperature against the distribution that the server itself reports."""

    def first(**more: object) -> list[str]:
        with ThreadPoolExecutor(32) as threads:
            return list(
                threads.map(
                    lambda seed: tokens(chat(server, seed=seed, temperature=8.0, max_tokens=1, **more))[0], range(200)
                )
            )

    listed = chat(server, max_tokens=1, top_logprobs=577)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    heated = torch.tensor([entry["logprob"] for entry in listed]).div(8).softmax(-1)
    shares = dict(zip((entry["token"] for entry in listed), heated.tolist(), strict=True))
    free = first()
    seen = free.count(listed[0]["token"]) / 200
    assert abs(seen - shares[listed[0]["token"]]) < 4 * (shares[listed[0]["token"]] / 200) ** 0.5
    assert len(set(free)) > 20
    assert set(first(top_k=2)) == {entry["token"] for entry in listed[:2]}
    sums = heated.cumsum(-1)
    nucleus = int((sums < 0.1).sum()) + 1
    assert set(first(top_p=0.1)) <= {entry["token"] for entry in listed[:nucleus]}
    least = int((heated >= 0.5 * heated[0]).sum())
    assert set(first(min_p=0.5)) <= {entry["token"] for entry in listed[:least]}


def test_a_reply_ends_at_a_stop_string_at_its_limit_or_at_the_end_of_the_context(server):
    answer = chat(server, temperature=0, stop=["lib/"])
    assert answer["choices"][0]["message"]["content"] == "```bash\ncat "
    assert answer["choices"][0]["finish_reason"] == "stop"
    answer = chat(server, temperature=0, max_tokens=3)
    assert (len(tokens(answer)), answer["choices"][0]["finish_reason"]) == (3, "length")
    answer = chat(server, messages=[{"role": "user", "content": "1 " * 180}])
    assert answer["usage"]["total_tokens"] <= 384
    with EndpointPolicy("tiny-aem", [server.url]) as policy, pytest.raises(ContextOverflow, match="maximum context"):
        policy.complete([{"role": "user", "content": "1 " * 400}, {"role": "assistant", "content": "2"}])


def test_turns_without_text_stop_strings_and_token_counts_are_as_with_vllm(server):
    turns = [*MESSAGES, {"role": "assistant", "content": None}, {"role": "user", "content": "go on\n"}]
    empty = [*MESSAGES, {"role": "assistant", "content": ""}, {"role": "user", "content": "go on\n"}]
    null, blank = (chat(server, temperature=0, messages=messages) for messages in (turns, empty))
    assert null["choices"][0]["message"] == blank["choices"][0]["message"]
    stopped = chat(server, temperature=0, stop=["lib/", "rope"])["choices"][0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "lib/")
    assert chat(server, temperature=0, max_tokens=2)["choices"][0]["stop_reason"] is None
    counted = token_count(server.url, None, "tiny-aem", MESSAGES)
    assert counted == chat(server, max_tokens=1)["usage"]["prompt_tokens"]
    assert context_size(server.url, None, "adapted") == 384
    tool = {"type": "function", "function": {"name": "bash"}}
    assert heeds_tools(server.url, None, "tiny-aem", [tool]) is False, "the shipped template shows no tools"


def test_the_type_that_is_computed_in_is_part_of_the_fingerprint(server, registry):
    assert server.dtype == "float32"
    assert fingerprint(server.url, "tiny-aem", dtype=server.dtype)["server"]["dtype"] == "float32"
    assert stored_dtype(registry.get("adapted"), registry) == stored_dtype(registry.get("tiny-aem"), registry) != ""


def test_an_adapter_is_served_beside_its_base_model_and_says_something_else(server, registry):
    served = client.ask(f"{server.url}/models")["data"]
    assert [(one["id"], one["parent"], one["max_model_len"]) for one in served] == [
        ("tiny-aem", None, 384),
        ("adapted", "tiny-aem", 384),
        ("compiled", "tiny-aem", 384),
    ]
    base, adapted = (fingerprint(server.url, name, registry.get(name), registry) for name in ("tiny-aem", "adapted"))
    assert base["canary"] != adapted["canary"]
    assert all(1 <= len(values) <= 8 for values in base["canary"].values())
    assert base["server"]["context"] == 384
    assert "transformers" in base["server"]["version"]
    assert "float32 on cpu" in base["server"]["version"]


def test_whether_log_probabilities_are_before_or_after_temperature_is_part_of_the_fingerprint(server, monkeypatch):
    """SGLang's are after, vLLM's and this server's before (findings/vllm-gives-logprobs-before-temperature-*.sh)."""
    assert fingerprint(server.url, "tiny-aem")["logprobs"] == "before temperature"
    real = client.post

    def after(url, body):
        assert body["temperature"] <= 2, "vLLM refuses more"
        answer = real(url, {**body, "logprobs": 500})
        for listed in answer["choices"][0]["logprobs"]["top_logprobs"]:
            heated = (torch.tensor(list(listed.values())) / (body["temperature"] or 1)).log_softmax(-1).tolist()
            listed.update(zip(list(listed), heated, strict=True))
        return answer

    monkeypatch.setattr(client, "post", after)
    assert logprobs_are(server.url, "tiny-aem") == "after temperature"
    monkeypatch.setattr(client, "post", lambda url, body: {"choices": [{"text": "a", "logprobs": None}]})
    assert logprobs_are(server.url, "tiny-aem") == ""


def test_an_adapter_of_which_nothing_is_applied_is_named_before_the_run(server):
    """Its tensors fit no layer, and servers say nothing (findings/vllm-serves-the-base-under-an-adapters-name.sh)."""
    told = {}
    for name in ("tiny-aem", "adapted", "compiled"):
        console = Console(file=io.StringIO(), width=1000)
        with connect([server.url], name, {}, console=console):
            told[name] = console.file.getvalue()
    assert told["tiny-aem"] == told["adapted"] == ""
    assert (
        "compiled answers to the last digit as its base model tiny-aem: the server applies nothing" in told["compiled"]
    )


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "bash"}}]}, "tools"),
        ({"max_tokens": 385}, "max_tokens=385 cannot be greater than max_model_len=384"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"stream": True}, "stream"),
        ({"n": 2}, "n: "),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "nothing is asked"),
        ({"messages": [{"content": "no role"}]}, "chat template"),
        ({"model": "nobody"}, "no model 'nobody'; there are: tiny-aem, adapted"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(server, more, named):
    with pytest.raises(client.Refused, match=named):
        chat(server, **more)


def test_many_clients_at_once_are_all_answered(server):
    sampling = Sampling(max_tokens=8, logprobs=5, vocabulary=577)
    began = time.monotonic()
    with EndpointPolicy("tiny-aem", [server.url], sampling, gpus=2) as policy, ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda seed: policy.complete(MESSAGES, seed=seed), range(256)))
    took = time.monotonic() - began
    assert took < sum(reply.gpu_seconds for reply in replies) <= 2 * took
    assert all(0 <= reply.server_queue_seconds < reply.seconds for reply in replies)
    assert max(reply.server_queue_seconds for reply in replies) > 0
    assert all(len(reply.entropies) == reply.completion_tokens > 0 and not reply.retries for reply in replies)
    assert not [reply.anomalies for reply in replies if reply.anomalies]


@pytest.mark.extended
def test_a_crash_is_answered_by_a_restart_and_every_call_under_way_is_repeated(tmp_path):
    known = Registry()
    with Server([known.get("tiny-aem")], known, tmp_path / "server.log") as server:
        (victim,) = (pid for pid, command in group(server.pid or 0).items() if command.startswith(sys.executable))
        with (
            EndpointPolicy("tiny-aem", [server.url], await_server=server.await_ready) as policy,
            ThreadPoolExecutor(8) as threads,
        ):
            under_way = [threads.submit(policy.complete, MESSAGES, seed=seed) for seed in range(64)]
            under_way[4].result()
            os.kill(victim, signal.SIGKILL)
            replies = [one.result() for one in under_way]
        assert any(reply.retries for reply in replies)
        assert [event["event"] for event in server.events] == ["started", "crashed", "restarted"]
        assert "killed from outside" in server.events[1]["detail"]


def test_a_model_of_many_parameters_is_refused_before_it_is_loaded(tmp_path):
    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    (tmp_path / "large").mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, **shape}
    (tmp_path / "large" / "config.json").write_text(json.dumps(config))
    add(Card(name="large", path="large"), tmp_path)
    known = Registry(tmp_path)
    with pytest.raises(PolicyFault, match=r"has 6\.7 billion parameters.*install it") as caught:
        Server([known.get("large")], known, tmp_path / "server.log").__enter__()
    assert "transformers did not start" in str(caught.value)


def test_a_parser_of_tool_calls_needs_vllm(tmp_path):
    add(Card(name="tools", path="w", serving=Serving(tool_call_parser="hermes")), tmp_path)
    known = Registry(tmp_path)
    with pytest.raises(PolicyFault, match=r"serving\.tool_call_parser needs vLLM"):
        Server([known.get("tools")], known, tmp_path / "server.log").__enter__()


def test_the_wanted_server_is_taken_or_its_absence_told(monkeypatch, tmp_path):
    assert find_program().name == "transformers"
    monkeypatch.setenv("AEM_SERVER", "vllm")
    (tmp_path / "vllm").write_text("")
    monkeypatch.setenv("AEM_VLLM", str(tmp_path / "vllm"))
    assert find_program().words == (str(tmp_path / "vllm"), "serve")
    monkeypatch.delenv("AEM_SERVER")
    monkeypatch.setenv("AEM_VLLM", str(tmp_path))
    with pytest.raises(ConfigError, match=r"AEM_VLLM is .*, where no vllm is"):
        find_program()
    (tmp_path / "bin").mkdir()
    (tmp_path / "vllm").rename(tmp_path / "bin" / "vllm")
    assert find_program().words == (str(tmp_path / "bin" / "vllm"), "serve")
    monkeypatch.setenv("AEM_SERVER", "ollama")
    with pytest.raises(ConfigError, match="vllm or transformers"):
        find_program()


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
def test_a_shipped_policy_mends_held_out_bugs_in_containers(tmp_path, capsys):
    before = set(threading.enumerate())
    words = ["--checkpoint", "tiny-aem", "--set", "tiny", "--slice", "0:12", "-w", "3", "--out", str(tmp_path / "run")]
    app(["run", *words], standalone_mode=False)
    assert "transformers, not vLLM, serves tiny-aem" in capsys.readouterr().err
    events = list(read_journal(tmp_path / "run"))
    outcomes = [event["outcome"] for event in events if event["event"] == "grade"]
    assert len(outcomes) == 12
    assert outcomes.count("resolved") >= 1
    assert all(0 <= event["mean_entropy"] < 3 for event in events if event["event"] == "rollout")
    assert "transformers" in read_json(tmp_path / "run" / "run.json")["fingerprint"]["server"]["version"]
    deadline = time.monotonic() + 20  # the watch over the engine ends with its present look
    while not set(threading.enumerate()) <= before:
        assert time.monotonic() < deadline, set(threading.enumerate()) - before
        time.sleep(0.1)
