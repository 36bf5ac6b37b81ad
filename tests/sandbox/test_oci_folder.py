"""A folder of images that another tool has written; no engine is needed."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.locks import Held, lock
from aem_harness.harness.sandbox import oci
from aem_harness.harness.sandbox.oci import NAME, Layout


@pytest.mark.parametrize("manifest", [{"manifests": []}, [], {"config": {}, "layers": []}, {"config": {"digest": "x"}}])
def test_what_is_no_manifest_of_one_image_is_refused_with_the_remedy(tmp_path: Path, manifest: object) -> None:
    """skopeo copy --all leaves an index of platforms under the image's name."""
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest).write_bytes(data)
    entry = {"digest": f"sha256:{digest}", "annotations": {NAME: "x:1"}}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    for ask in (Layout(tmp_path).load, Layout(tmp_path).image_id):
        with pytest.raises(DataError, match="copy it again for one platform, or save it with aem images save"):
            ask("x:1")


def saved(content: bytes) -> bytes:
    """What an engine gives out for an image of one layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    config = {"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]}}
    files = {
        "layer.tar": layer.getvalue(),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "Layers": ["layer.tar"]}]).encode(),
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_blob_that_is_missing_or_cut_makes_its_image_incomplete_and_saving_again_repairs_it(
    tmp_path, monkeypatch, how
) -> None:
    """The remedy that was named, to save the image again, said that it was there."""

    def image(name: str) -> SimpleNamespace:
        return SimpleNamespace(save=lambda named: iter([saved(b"the same")]))

    monkeypatch.setattr(oci, "client", lambda: SimpleNamespace(images=SimpleNamespace(get=image)))
    layout = Layout(tmp_path)
    layout.save("x:1")
    blobs = list((tmp_path / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3
    for blob in blobs:
        assert layout.complete("x:1")
        if how == "cut":
            blob.write_bytes(blob.read_bytes()[:-1])
        else:
            blob.unlink()
        assert not layout.complete("x:1"), blob
        layout.save("x:1")
    assert layout.complete("x:1")
    assert not layout.complete("y:1")


def test_one_process_at_a_time_saves_into_a_folder_and_removes_what_a_killed_one_left(tmp_path, monkeypatch) -> None:
    """Two at once each wrote the index that they had read, so that an image of the other was missing in it."""
    others: list[str] = []

    def stream(name: str) -> Iterator[bytes]:
        with (tmp_path / ".lock").open("w") as handle:
            try:
                lock(handle)
                others.append("would save now, too")
            except Held:
                others.append("waits")
        yield saved(name.encode())

    def image(name: str) -> SimpleNamespace:
        return SimpleNamespace(save=lambda named: stream(name))

    monkeypatch.setattr(oci, "client", lambda: SimpleNamespace(images=SimpleNamespace(get=image)))
    (tmp_path / ".saving-killed").mkdir()
    (tmp_path / ".saving-killed" / "layer.tar").write_bytes(b"half")
    for name in ("x:1", "y:1"):
        Layout(tmp_path).save(name)
    assert others == ["waits", "waits"]
    assert Layout(tmp_path).names() == ["x:1", "y:1"]
    assert not list(tmp_path.glob(".saving-*"))
