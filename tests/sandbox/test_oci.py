"""Images carried in a folder: what comes out is what went in, shared layers lie there once, damage is found."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.load import load
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.sandbox.oci import Layout

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]


@pytest.fixture
def names(tmp_path: Path) -> Iterator[list[str]]:
    """Two images that share a layer of a megabyte, and have one of their own."""
    made = [f"aem/test-oci-{uuid4().hex[:8]}:{n}" for n in (1, 2)]
    context = tmp_path / "context"
    context.mkdir()
    (context / "shared").write_bytes(os.urandom(1_000_000))
    for n, name in enumerate(made):
        (context / "own").write_text(f"{n}\n")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY shared /shared\nCOPY own /own\nLABEL some=thing\n")
        client().images.build(path=str(context), tag=name, rm=True, forcerm=True)
    yield made
    for name in made:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True)


def test_images_come_out_of_a_folder_as_they_went_in(names, tmp_path):
    ids = [client().images.get(name).id for name in names]
    layout = Layout(tmp_path / "images")
    first, second = (layout.save(name) for name in names)
    assert first > 1_000_000
    assert second < 10_000, "the layer that they share lies there once"
    assert layout.save(names[0]) == 0
    assert layout.names() == [names[1], names[0]]
    for name in names:
        client().images.remove(name)
    done = CliRunner().invoke(app, ["images", "load", str(tmp_path / "images")])
    assert done.exit_code == 0, done.output
    assert [client().images.get(name).id for name in names] == ids
    assert [layout.image_id(name) for name in names] == ids
    assert "was there" in CliRunner().invoke(app, ["images", "load", str(tmp_path / "images")]).output
    assert json.loads((tmp_path / "images" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_a_damaged_blob_is_named_and_keeps_no_other_image(names, tmp_path):
    layout = Layout(tmp_path / "images")
    for name in names:
        layout.save(name)
        client().images.remove(name)
    own = min(
        (layout.folder / "blobs" / "sha256" / layer["digest"].partition(":")[2] for layer in layers(layout, names[0])),
        key=lambda path: path.stat().st_size,
    )
    own.write_bytes(b"nothing")
    done = CliRunner().invoke(app, ["images", "load", str(layout.folder)])
    assert done.exit_code == 3
    assert f"failed  {names[0]}" in done.output
    assert f"{own} is damaged" in done.output
    assert client().images.get(names[1])


def test_the_same_command_repairs_a_folder_that_lacks_a_blob(names, tmp_path):
    """It said that the image was there, and loading it that it was to be saved again."""
    row = json.loads((Path(load.__code__.co_filename).parent / "tiny" / "rows.jsonl").read_text().splitlines()[0])
    row.pop("dockerfile")
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "images"
    lines = [{**row, "instance_id": f"x__y-{n}", "image": name} for n, name in enumerate(names)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def aem(*words: str) -> str:
        return CliRunner().invoke(app, ["images", words[0], str(folder), *words[1:]]).output

    assert aem("save", "--set", str(rows)).count("MB") == 2
    own = min(layers(Layout(folder), names[0]), key=lambda layer: layer["size"])
    (folder / "blobs" / "sha256" / own["digest"].partition(":")[2]).unlink()
    again = aem("save", "--set", str(rows))
    assert (again.count("MB"), again.count("was there")) == (1, 1)
    for name in names:
        client().images.remove(name)
    assert aem("load").count("done") == 2


def layers(layout: Layout, name: str) -> list[dict[str, str]]:
    entry = layout._entry(name)
    found: list[dict[str, str]] = json.loads(layout._checked(entry["digest"]).read_text())["layers"]
    return found


def test_a_folder_without_images_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["images", "load", str(tmp_path)])
    assert isinstance(done.exception, DataError)
