"""The builder's own logic: what is built when, and what makes an image stale. No engine needed."""

import io
import tarfile
from pathlib import Path

import pytest

from aem_harness.harness.io import cache_folder
from tests.verified.build import (
    Layer,
    Unavailable,
    instance_ids,
    pack,
    recipes,
    require_index,
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


def test_a_packed_python_leaves_out_what_an_image_does_not_need(tmp_path: Path) -> None:
    wanted = {"bin/python3.9", "lib/python3.9/os.py", "lib/python3.9/email/mime.py", "include/Python.h"}
    unwanted = {
        "lib/python3.9/site-packages/left/over.py",
        "lib/python3.9/test/test_os.py",
        "lib/python3.9/config-3.9-x86_64-linux-gnu/libpython3.9.a",
        "lib/python3.9/__pycache__/os.cpython-39.pyc",
        "share/man/man1/python3.9.1",
    }
    for name in wanted | unwanted:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path))) as tar:
        assert {entry.name.removeprefix("./") for entry in tar if entry.isfile()} == wanted


def test_a_corrupt_sdist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (cache_folder("sdists") / "some-1.0.tar.gz").write_bytes(b"not the release")
    with pytest.raises(Unavailable, match="expected abc"):
        sdist("some", "1.0", "abc")


@pytest.mark.network
def test_an_sdist_comes_from_the_index_of_this_machine_and_only_with_the_pinned_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        require_index()
    except Unavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="pip cannot download"):
        sdist("six", "1.17.0", "0" * 64)
    content = sdist("six", "1.17.0", "ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81")
    assert len(content) > 1000
    assert [path.name for path in cache_folder("sdists").iterdir()] == ["six-1.17.0.tar.gz"]
