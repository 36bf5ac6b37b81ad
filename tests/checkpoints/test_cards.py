"""Cards, the registry that finds them, and weights that are, or are no longer, those of their card."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from aem_harness.aem_checkpoints.adding import add, cards, steps_in
from aem_harness.aem_checkpoints.card import (
    Card,
    Method,
    Scaffold,
    Serving,
    Training,
    differences,
    make_card,
    read_card,
)
from aem_harness.aem_checkpoints.registry import Registry
from aem_harness.cli import app
from aem_harness.harness.errors import AemError, ConfigError

WORD = st.text(max_size=20)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORD
VALUE = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3))
VALUES = st.dictionaries(WORD, VALUE, max_size=3)
CARDS = st.builds(
    Card,
    name=st.from_regex(r"[a-z][a-z0-9.-]{0,9}(@[0-9]{1,4})?", fullmatch=True),
    path=st.text(min_size=1, max_size=20),
    licence=WORD,
    description=WORD,
    method=st.builds(Method, kind=st.sampled_from(["baseline", "aem", "other"]), base=WORD, parameters=VALUES),
    training=st.builds(Training, run=WORD, step=st.none() | st.integers(0, 10**6), config=VALUES),
    serving=st.builds(
        Serving,
        max_model_len=st.none() | st.integers(1, 10**6),
        flags=st.dictionaries(
            WORD, st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORD, max_size=3
        ),
    ),
    scaffold=st.builds(Scaffold, options=VALUES),
    sampling=VALUES,
    digests=st.dictionaries(WORD, WORD, max_size=3),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry of this machine is on the search path, and digests are cached in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEM_REGISTRY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def weights(folder: Path, value: float = 0.0, **files: str) -> Path:
    """A folder that looks like a checkpoint: one real safetensors file, and whatever else is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full((4, 4), value, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"vocab_size": 512}')
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)
    return folder


def registered(registry: Path, name: str, folder: Path, **values: object) -> Card:
    (card,) = cards(name, {"path": str(folder), **values}, registry)
    add(card, registry)
    return card


def aem(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    app(list(words), standalone_mode=False)
    return capsys.readouterr().out


# --- cards ----------------------------------------------------------------------------------------------------------


@given(CARDS)
def test_a_card_reads_back_as_it_was_written(card):
    assert Card(**yaml.safe_load(card.to_yaml())) == card


@given(CARDS, CARDS)
def test_differences_are_exactly_the_values_that_differ(left, right):
    ours, theirs = left.model_dump(mode="json"), right.model_dump(mode="json")
    assert not list(differences(ours, ours))
    assert bool(list(differences(ours, theirs))) <= (left != right)
    for _, a, b in differences(ours, theirs):
        assert a != b


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a b\npath: .", "name: letters"),
        ("name: a", "give either path or hub"),
        ("name: a\npath: .\nhub: x/y", "give either path or hub"),
        ("name: a\npath: .\nweights: lora", "needs base_model"),
        ("name: a\npath: .\nmethod: {kind: rl}", "method.kind"),
        ("name: a\npath: .\nserving: {max_model_len: 0}", "serving.max_model_len"),
        ("name: a\npath: .\ncolour: red", "colour"),
        ("- a", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_card_is_one_line_with_its_file_and_field(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_card(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- finding --------------------------------------------------------------------------------------------------------


def test_the_folder_given_wins_over_the_environment_and_that_over_checkpoints(tmp_path, monkeypatch):
    for name in ("given", "environment", "checkpoints"):
        registered(tmp_path / name, "policy", weights(tmp_path / name / "w"), description=name)
    registered(tmp_path / "checkpoints", "only-here", weights(tmp_path / "checkpoints" / "w"))
    assert Registry().get("policy").card.description == "checkpoints"
    monkeypatch.setenv("AEM_REGISTRY", str(tmp_path / "environment"))
    assert Registry().get("policy").card.description == "environment"
    assert Registry(tmp_path / "given").get("policy").card.description == "given"
    assert Registry(tmp_path / "given").get("only-here").folder == tmp_path / "checkpoints" / "w"


def test_an_unknown_name_is_answered_with_what_comes_close(tmp_path):
    registered(tmp_path / "r", "deepswe-aem", weights(tmp_path / "w"))
    registered(tmp_path / "r", "base", weights(tmp_path / "b"))
    with pytest.raises(ConfigError, match=r"no checkpoint 'deepswe_aem' .* there are: deepswe-aem, base"):
        Registry(tmp_path / "r").get("deepswe_aem")
    with pytest.raises(ConfigError, match="no registry at"):
        Registry(tmp_path / "nowhere")


def test_a_series_is_its_steps_in_order(tmp_path):
    run = tmp_path / "run"
    for step in (250, 50, 100, 9):
        weights(run / f"checkpoint-{step}", step)
    for card in cards("dapo@*", {"path": str(run), "training": {"run": "dapo"}}, tmp_path / "r"):
        add(card, tmp_path / "r")
    registry = Registry(tmp_path / "r")

    def steps(name: str) -> list[int | None]:
        return [entry.card.step for entry in registry.series(name)]

    assert steps("dapo@*") == [9, 50, 100, 250]
    assert steps("dapo@50..250") == [50, 100, 250]
    assert steps("dapo@9,100..200") == [9, 100]
    assert steps("dapo@100") == [100]
    assert registry.get("dapo@50").card.training == Training(run="dapo", step=50)
    with pytest.raises(ConfigError, match="steps of dapo: 9, 50, 100, 250"):
        steps("dapo@300..400")
    with pytest.raises(ConfigError, match=r"50, 50\.\.250 or 50,100, not 'last'"):
        steps("dapo@last")


def test_steps_are_found_where_trainers_put_them(tmp_path):
    weights(tmp_path / "trl" / "checkpoint-50")
    weights(tmp_path / "verl" / "global_step_100" / "actor" / "huggingface")
    assert steps_in(tmp_path / "trl") == {50: tmp_path / "trl" / "checkpoint-50"}
    assert steps_in(tmp_path / "verl") == {100: tmp_path / "verl" / "global_step_100" / "actor" / "huggingface"}
    with pytest.raises(ConfigError, match="no checkpoints by step"):
        steps_in(tmp_path / "nothing")


# --- provenance -------------------------------------------------------------------------------------------------------

TRAINED = {
    "parent": "tiny-base",
    "method": {"kind": "aem", "base": "grpo", "parameters": {"lam": 1.0}},
    "training": {"run": "mine", "step": 48, "seeds": [3]},
    "scaffold": {"options": {"prompts": "tiny-1"}},
    "sampling": {"temperature": 1.0},
}


def trained(folder: Path, **changes: object) -> Path:
    """A folder as `aem train` leaves it, with its card."""
    from aem_harness.aem_checkpoints.weights import identify

    weights(folder)
    values = {"name": "run-name", "path": ".", "digests": identify(folder), **TRAINED, **changes}
    (folder / "card.yaml").write_text(make_card(values, "made").to_yaml())
    return folder


def provenance(card: Card) -> dict[str, object]:
    values = card.model_dump(mode="json", exclude_defaults=True)
    return {key: values.get(key) for key in TRAINED}


def test_a_trained_folder_is_registered_with_the_card_that_training_wrote(tmp_path, capsys):
    trained(tmp_path / "run" / "checkpoint")
    aem(capsys, "checkpoints", "add", "mine", "--path", "run/checkpoint", "--registry", "r")
    card = Registry(tmp_path / "r").get("mine").card
    assert provenance(card) == TRAINED
    assert Registry(tmp_path / "r").get("mine").problems() == []


def test_what_is_given_goes_over_the_folders_card_value_by_value(tmp_path):
    folder = trained(tmp_path / "w")
    card = registered(tmp_path / "r", "mine", folder, method={"parameters": {"note": "x"}}, parent="other")
    assert card.method.parameters == {"lam": 1.0, "note": "x"}
    assert (card.method.kind, card.parent) == ("aem", "other")


def test_another_card_lends_how_to_serve_and_drive_but_never_its_training(tmp_path, capsys):
    lender = {"serving": {"max_model_len": 99}, "scaffold": {"agent": "deepswe"}, "licence": "MIT"}
    trained(tmp_path / "w1", **lender)
    weights(tmp_path / "w2", 1.0)
    aem(capsys, "checkpoints", "add", "lender", "--path", "w1", "--registry", "r")
    aem(capsys, "checkpoints", "add", "plain", "--path", "w2", "--registry", "r", "--from-card", "lender")
    card = Registry(tmp_path / "r").get("plain").card
    assert (card.serving.max_model_len, card.scaffold.agent, card.licence) == (99, "deepswe", "MIT")
    assert (card.method, card.training, card.parent) == (Method(), Training(), "")
    trained(tmp_path / "w3", parent="mine", training={"run": "third", "step": 7})
    aem(capsys, "checkpoints", "add", "third", "--path", "w3", "--registry", "r", "--from-card", "lender")
    third = Registry(tmp_path / "r").get("third").card
    assert (third.parent, third.training.run, third.serving.max_model_len) == ("mine", "third", 99)


def test_every_step_of_a_run_has_the_runs_card(tmp_path):
    run = tmp_path / "run"
    trained(run / "draft")
    (run / "config.json").write_text("{}")
    (run / "draft" / "card.yaml").rename(run / "card.yaml")
    for place in (run / "trl" / "checkpoint-5", run / "verl" / "global_step_9" / "actor" / "huggingface"):
        weights(place)
        (card,) = cards("one", {"path": str(place)}, tmp_path / "r")
        assert provenance(card) == TRAINED | {
            "training": {"run": "mine", "step": 5 if "trl" in str(place) else 9, "seeds": [3]}
        }
    (card,) = cards("s@*", {"path": str(run / "trl")}, tmp_path / "r")
    assert (card.name, card.training.step, card.method.kind) == ("s@5", 5, "aem")


def test_a_card_of_other_weights_is_not_taken_over(tmp_path):
    folder = trained(tmp_path / "w")
    weights(folder, 5.0)
    with pytest.raises(ConfigError, match=r"card.yaml was written for other weights than model.safetensors is now"):
        registered(tmp_path / "r", "mine", folder)


def test_a_chat_template_beside_the_weights_is_found_from_the_registry(tmp_path):
    folder = trained(tmp_path / "w", serving={"chat_template": "t.jinja"})
    (folder / "t.jinja").write_text("{{ messages }}")
    card = registered(tmp_path / "r", "mine", folder)
    assert (tmp_path / "r" / (card.serving.chat_template or "")).resolve() == folder / "t.jinja"


# --- weights --------------------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def change(file: Path) -> None:
    blob = file.read_bytes()
    file.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "is missing"),
        (truncate, "is damaged: .* its header promises"),
        (change, "has changed since it was registered"),
        (lambda file: file.write_bytes(b"x"), "is damaged: shorter than its header"),
        (lambda file: file.write_bytes(b"\xff" * 64), "is damaged: its header is cut off"),
        (lambda file: file.write_bytes((5).to_bytes(8, "little") + b"[1,2]"), "is damaged: its header is not that"),
    ],
)
def test_damaged_weights_are_one_clear_line_and_no_run_starts(tmp_path, damage, says, capsys):
    folder = weights(tmp_path / "w")
    registered(tmp_path / "r", "policy", folder)
    entry = Registry(tmp_path / "r").get("policy")
    assert entry.problems() == []
    damage(folder / "model.safetensors")
    (line,) = entry.problems()
    assert re.search(says, line), line
    assert "\n" not in line
    for words in (["checkpoints", "verify"], ["run", "--checkpoint", "policy"]):
        with pytest.raises(AemError, match=r"policy: .*|1 of \d+ checkpoints do not match their cards"):
            app([*words, "--registry", str(tmp_path / "r")], standalone_mode=False)


def test_a_folder_with_two_saves_is_refused_and_noticed_later(tmp_path):
    """transformers would read the one and vLLM the other (findings/transformers-reads-back-an-earlier-save.sh)."""
    folder = weights(tmp_path / "w")
    registered(tmp_path / "r", "policy", folder)
    save_file({"w": np.ones((4, 4), np.float32)}, folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00001.safetensors"}}))
    (line,) = Registry(tmp_path / "r").get("policy").problems()
    assert "holds two saves: transformers reads model.safetensors, vLLM the shards" in line
    with pytest.raises(ConfigError, match=r"holds two saves: .* remove the files of the older one"):
        registered(tmp_path / "r", "again", folder)
    index.write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
    assert Registry(tmp_path / "r").get("policy").problems() == [], "an index of the one file there is"


def test_a_change_that_keeps_the_size_is_seen_though_digests_are_cached(tmp_path):
    folder = weights(tmp_path / "w", 1.0)
    registered(tmp_path / "r", "policy", folder)
    before = (folder / "model.safetensors").stat()
    weights(folder, 2.0)
    os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (line,) = Registry(tmp_path / "r").get("policy").problems()
    assert "has changed" in line


def test_an_adapter_knows_its_base_and_damage_to_the_base_stops_a_run_of_the_adapter(tmp_path):
    from aem_harness.api.serving import find

    base = weights(tmp_path / "base")
    registered(tmp_path / "r", "base", base)
    adapter = weights(tmp_path / "adapter", adapter_config='{"r": 8, "base_model_name_or_path": "base"}')
    assert registered(tmp_path / "r", "adapter", adapter).base_model == "base"
    assert [entry.card.name for entry in find("adapter", tmp_path / "r")] == ["adapter"]
    change(base / "model.safetensors")
    with pytest.raises(ConfigError, match=r"base: .* has changed"):
        find("adapter", tmp_path / "r")


# --- the commands ---------------------------------------------------------------------------------------------------


def test_add_list_show_verify_diff(tmp_path, capsys):
    weights(tmp_path / "checkpoints" / "w")
    aem(capsys, "checkpoints", "add", "base", "--path", "checkpoints/w", "--method", "baseline", "--licence", "MIT")
    aem(
        capsys, "checkpoints", "add", "treated", "--path", "checkpoints/w", "--from-card", "base", "--method", "aem",
        "-c", "method.parameters.lam=0.5",
    )  # fmt: skip
    assert read_card(tmp_path / "checkpoints" / "base.yaml").path == "w"
    listed = aem(capsys, "checkpoints", "list")
    assert "base" in listed
    assert re.search(r"^ treated .* checkpoints/w *$", listed, re.MULTILINE), "a path below this folder, on one line"
    assert re.search(r"^ tiny-grpo .* shipped *$", listed, re.MULTILINE)
    shown = yaml.safe_load(aem(capsys, "checkpoints", "show", "treated"))
    assert make_card(shown, "shown") == Registry().get("treated").card
    assert shown["method"] == {"kind": "aem", "parameters": {"lam": 0.5}}
    assert shown["licence"] == "MIT"
    assert "treated: as registered" in aem(capsys, "checkpoints", "verify", "treated")
    differing = aem(capsys, "checkpoints", "diff", "base", "treated")
    assert "method.parameters.lam" in differing
    assert not re.search(r"[0-9a-f]{13}|…", differing)
    assert "licence" not in differing
    with pytest.raises(ConfigError, match="--replace"):
        aem(capsys, "checkpoints", "add", "base", "--path", "checkpoints/w")


def test_a_registry_moves_with_its_weights(tmp_path):
    registered(tmp_path / "here", "policy", weights(tmp_path / "here" / "w"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert Registry(tmp_path / "there").get("policy").problems() == []


def test_what_is_shipped_is_what_its_card_says():
    for entry in Registry().entries():
        assert entry.problems() == []
