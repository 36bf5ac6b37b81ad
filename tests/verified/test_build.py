"""The builder's own logic: what is built when, and what makes an image stale. No engine needed."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.verified.build import (
    Layer,
    Unavailable,
    context,
    instance_ids,
    recipe_digest,
    recipes,
    sdist,
    waves,
)


def test_every_recipe_names_a_project_and_every_project_an_environment() -> None:
    found = recipes()
    assert set(found["instances"].values()) == set(found["projects"])
    assert {project["environment"] for project in found["projects"].values()} == set(found["environments"])


def test_the_listed_instances_cover_enough_repositories() -> None:
    assert len(instance_ids()) >= 8
    assert len({instance_id.rsplit("-", 1)[0] for instance_id in instance_ids()}) >= 4


def test_shared_layers_are_built_once_and_before_what_stands_on_them() -> None:
    python = Layer("python", "base", "")
    project = Layer("project", Layer("environment", python, ""), "")
    other = Layer("other", Layer("environment-2", python, ""), "")
    order = waves([Layer("a", project, ""), Layer("b", project, ""), Layer("c", other, "")])
    assert [[layer.name for layer in wave] for wave in order] == [
        ["python"],
        ["environment", "environment-2"],
        ["project", "other"],
        ["a", "b", "c"],
    ]


def test_an_image_is_stale_when_its_parent_its_steps_or_its_files_change(tmp_path: Path) -> None:
    file = tmp_path / "setup.sh"
    file.write_text("one")
    same = recipe_digest("parent", "RUN x", {"setup.sh": file})
    assert recipe_digest("parent", "RUN x", {"setup.sh": b"one"}) == same
    assert recipe_digest("other", "RUN x", {"setup.sh": file}) != same
    assert recipe_digest("parent", "RUN y", {"setup.sh": file}) != same
    file.write_text("two")
    assert recipe_digest("parent", "RUN x", {"setup.sh": file}) != same


def test_the_build_context_leaves_out_what_an_image_of_python_does_not_need(tmp_path: Path) -> None:
    wanted = {"bin/python3.9", "lib/python3.9/os.py", "lib/python3.9/site-packages/README.txt", "include/Python.h"}
    unwanted = {
        "lib/python3.9/site-packages/left/over.py",
        "lib/python3.9/test/test_os.py",
        "lib/python3.9/config-3.9-x86_64-linux-gnu/libpython3.9.a",
        "lib/python3.9/__pycache__/os.cpython-39.pyc",
    }
    for name in wanted | unwanted:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with context("FROM base", {"python": tmp_path, "text": b"hello"}) as archive:
        with tarfile.open(fileobj=io.BytesIO(archive.read())) as tar:
            names = {entry.name for entry in tar if entry.isfile()}
            assert tar.extractfile("Dockerfile").read() == b"FROM base"  # type: ignore[union-attr]
    assert names - {"Dockerfile", "text"} == {f"python/{name}" for name in wanted} - {
        "python/lib/python3.9/site-packages/README.txt"
    }


def test_a_corrupt_sdist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.verified.build.CACHE", tmp_path)
    (tmp_path / "some-1.0.tar.gz").write_bytes(b"not the release")
    with pytest.raises(Unavailable, match="expected abc"):
        sdist("some", "1.0", "abc")
