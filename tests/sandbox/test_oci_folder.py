"""A folder of images that another tool has written; no engine is needed."""

import hashlib
import json
from pathlib import Path

import pytest

from aem_harness.harness.errors import DataError
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
