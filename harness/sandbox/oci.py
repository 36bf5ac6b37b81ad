"""Images in a folder, for machines without a registry: an OCI image layout, whose layers are there once each.

Other tools read and write it, too (`skopeo copy oci:FOLDER:NAME ...`). Layers are compressed; every blob is checked
against its digest before it is loaded.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from aem_harness.harness.errors import DataError, EnvironmentFault, boundary
from aem_harness.harness.io import write_json
from aem_harness.harness.locks import lock
from aem_harness.harness.sandbox.engine import client, explained

NAME = "org.opencontainers.image.ref.name"
LAYER, CONFIG, MANIFEST, INDEX = (
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
KNOWN = "layers.json"  # beside the layout: which compressed layer is which unpacked one, so that none is packed twice
CHUNK = 1 << 20
SAVING = ".saving-"  # begins the name of a folder in which an image is unpacked


class Layout:
    """The folder. Raises DataError for a damaged one, EnvironmentFault when the engine fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The images in it, by their names."""
        return [entry["annotations"][NAME] for entry in self._entries()]

    def complete(self, name: str) -> bool:
        """Has it all blobs of an image, in their full length? Their content is checked when they are loaded."""
        try:
            manifest = self._manifest(name)
            return all(self._has(one) for one in (manifest["config"], *manifest["layers"]))
        except (DataError, KeyError):
            return False

    def image_id(self, name: str) -> str:
        """The id that an image of the folder has in an engine: the digest of its configuration."""
        return str(self._manifest(name)["config"]["digest"])

    def save(self, name: str) -> int:
        """Add an image of the engine, or replace it; returns the bytes that it added.

        Another process that saves into the same folder is waited for. What a killed one left half done is removed.
        """
        (self.folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            if lock(handle, wait=True):
                for left in self.folder.glob(f"{SAVING}*"):
                    shutil.rmtree(left, ignore_errors=True)
            return self._save(name)

    def _save(self, name: str) -> int:
        from docker.errors import DockerException

        write_json(self.folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=SAVING) as scratch:
            try:
                stream = cast("Iterator[bytes]", client().images.get(name).save(named=True))
                parts = _unpacked(stream, Path(scratch))
            except (DockerException, OSError, tarfile.TarError) as error:
                raise EnvironmentFault(f"image {name} cannot be saved: {explained(error)}") from None
            return self._add(name, parts)

    def load(self, name: str) -> None:
        """Give an image of the folder to the engine."""
        from docker.errors import DockerException

        manifest = self._manifest(name)
        blobs = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
        files = [self._checked(digest) for digest in blobs]
        listed = [{"Config": files[0].name, "RepoTags": [name], "Layers": [file.name for file in files[1:]]}]
        with tempfile.TemporaryFile(dir=self.folder) as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for file in dict.fromkeys(files):
                    tar.add(file, file.name)
                data = json.dumps(listed).encode()
                about = tarfile.TarInfo("manifest.json")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
            archive.seek(0)
            try:
                client().images.load(archive)
            except (DockerException, OSError) as error:
                raise EnvironmentFault(f"image {name} cannot be loaded: {explained(error)}") from None

    # --- inside -----------------------------------------------------------------------------------------------------

    def _entry(self, name: str) -> dict[str, Any]:
        entry = next((one for one in self._entries() if one["annotations"][NAME] == name), None)
        if entry is None:
            raise DataError(f"{self.folder} holds no image {name}; aem images save {self.folder} adds images")
        return entry

    def _manifest(self, name: str) -> dict[str, Any]:
        """The manifest of one image. Raises DataError for what other tools put there, such as several platforms."""
        try:
            found: dict[str, Any] = json.loads(self._checked(str(self._entry(name)["digest"])).read_bytes())
            if found["config"]["digest"] and all(layer["digest"] for layer in found["layers"]):
                return found
        except (ValueError, KeyError, TypeError):
            pass
        raise DataError(
            f"{self.folder}: {name} is not the manifest of one image (one for several platforms?): copy it again for "
            "one platform, or save it with aem images save"
        )

    def _entries(self) -> list[dict[str, Any]]:
        path = self.folder / "index.json"
        if not path.is_file():
            return []
        try:
            found = json.loads(path.read_text())["manifests"]
            return [one for one in found if one.get("annotations", {}).get(NAME)]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{path} is not the index of an OCI image layout") from None

    def _add(self, name: str, parts: Mapping[str, Path]) -> int:
        [about] = json.loads(parts["manifest.json"].read_text())
        config = parts[about["Config"]].read_bytes()
        added, layers = 0, []
        known: dict[str, Any] = self._known()
        for path, unpacked in zip(about["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
            if unpacked not in known or not self._has(known[unpacked]):
                known[unpacked] = self._packed(parts[path], unpacked)
                added += known[unpacked]["size"]
            layers.append({"mediaType": LAYER, **known[unpacked]})
        write_json(self.folder / KNOWN, known)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self._kept(config)},
            "layers": layers,
        }
        entry = {"mediaType": MANIFEST, **self._kept(json.dumps(manifest).encode()), "annotations": {NAME: name}}
        others = [one for one in self._entries() if one["annotations"][NAME] != name]
        write_json(self.folder / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]})
        return added

    def _has(self, blob: Mapping[str, Any]) -> bool:
        path = self._blob(blob["digest"])
        return path.is_file() and path.stat().st_size == blob["size"]

    def _known(self) -> dict[str, Any]:
        path = self.folder / KNOWN
        try:
            return dict(json.loads(path.read_text())) if path.is_file() else {}
        except ValueError:
            return {}

    def _packed(self, layer: Path, unpacked: str) -> dict[str, Any]:
        """Compress a layer into a blob, checking on the way that it is the one that the image names."""
        plain, packed = hashlib.sha256(), hashlib.sha256()
        target = layer.with_suffix(".gz")
        with layer.open("rb") as source, target.open("wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as sink:
                while data := source.read(CHUNK):
                    plain.update(data)
                    sink.write(data)
        if f"sha256:{plain.hexdigest()}" != unpacked:
            raise EnvironmentFault(f"the engine saved a layer that is not {unpacked}")
        with target.open("rb") as source:
            while data := source.read(CHUNK):
                packed.update(data)
        size = target.stat().st_size
        layer.unlink(missing_ok=True)
        digest = f"sha256:{packed.hexdigest()}"
        target.replace(self._blob(digest))
        return {"digest": digest, "size": size}

    def _kept(self, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._blob(digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def _blob(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise DataError(f"{self.folder}: {digest[:80]!r} is no SHA-256 digest")
        return self.folder / "blobs" / "sha256" / name

    def _checked(self, digest: str) -> Path:
        path, seen = self._blob(digest), hashlib.sha256()
        try:
            with path.open("rb") as file:
                while data := file.read(CHUNK):
                    seen.update(data)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}: save the image again") from None
        if f"sha256:{seen.hexdigest()}" != digest:
            raise DataError(
                f"{path} is damaged: its content does not match its digest; remove it, and save the image again"
            )
        return path


class _Reader(io.RawIOBase):
    """The chunks of a stream as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _target(folder: PurePosixPath | None, link: str) -> str:
    """The name in an archive that a link means: relative to its folder, or to the top."""
    parts: list[str] = []
    for part in (folder / link if folder else PurePosixPath(link)).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _unpacked(stream: Iterator[bytes], folder: Path) -> dict[str, Path]:
    """The files of an engine's archive, by their names in it; a layer may be a link to another's file."""
    found: dict[str, Path] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=cast("IO[bytes]", io.BufferedReader(_Reader(stream), CHUNK)), mode="r|") as tar:
        for number, entry in enumerate(tar):
            if entry.issym() or entry.islnk():
                links[entry.name] = _target(PurePosixPath(entry.name).parent if entry.issym() else None, entry.linkname)
            elif entry.isfile() and (data := tar.extractfile(entry)) is not None:
                path = folder / str(number)
                with path.open("wb") as file:
                    shutil.copyfileobj(data, file, CHUNK)
                found[entry.name] = path
    for name, target in links.items():
        if target in found:
            copy = folder / f"link-{len(found)}"
            copy.hardlink_to(found[target])
            found[name] = copy
    with boundary(EnvironmentFault, "the engine's archive holds no manifest.json"):
        assert "manifest.json" in found
    return found
