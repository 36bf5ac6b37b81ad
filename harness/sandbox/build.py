"""Building images without a registry: Debian by debootstrap, the base with its conda-style environment, the instances.

Every image built here carries the label `aem.recipe`, a digest of all that went into it; one whose digest is current is
not built again. Processes that want the same image wait for each other.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aem_harness import __version__
from aem_harness.harness.errors import EnvironmentFault, boundary
from aem_harness.harness.io import cache_folder
from aem_harness.harness.locks import lock
from aem_harness.harness.sandbox.engine import client, explained, raise_for

RECIPE = "aem.recipe"
DEBIAN, BASE = "aem/debian:bookworm", "aem/base:bookworm"
PUBLIC_DEBIAN = "debian:bookworm-slim"
MIRROR = "AEM_DEBIAN_MIRROR"  # environment variable: where debootstrap gets Debian, for machines without the internet
BASE_FOLDER = Path(__file__).parent / "base"
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")

# What package managers say when the network, not the recipe, is at fault: the build is tried again, from the layer it
# reached, after these many seconds.
NETWORK = (
    "name resolution",
    "could not resolve",
    "failed to fetch",
    "failed to establish a new connection",
    "timed out",
)
WAITS = (5.0, 30.0)

Say = Callable[[str], None]  # told what is being done, a line at a time


def silent(line: str) -> None: ...


def build_folder(folder: Path, name: str, say: Say = silent, args: Mapping[str, str] = MappingProxyType({})) -> None:
    """Build the image `name` from a folder with a Dockerfile, unless it is there and current; the base comes first.

    Raises EnvironmentFault with the end of the build log when a step fails.
    """
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    if "Dockerfile" not in files:
        raise EnvironmentFault(f"cannot build {name}: {folder} has no Dockerfile")
    parent = _parent(files["Dockerfile"].decode(), args)
    if parent == BASE:
        build_base(say)
    build(name, files, parent, say, args)


def build_base(say: Say = silent) -> None:
    """Make `aem/base:bookworm` present and current."""
    _debian(say)
    files = {path.name: path.read_bytes() for path in BASE_FOLDER.iterdir()}
    # The host's own certificates and index settings: its package index may be reachable only with them. No certificate
    # variable goes into the image's environment, which tests of HTTP libraries would read.
    files["certificates/.keep"] = b""
    files |= {f"certificates/{path.name}": path.read_bytes() for path in LOCAL_CERTIFICATES.rglob("*.crt")}
    files["pip.conf"] = b"[global]\ncert = /etc/ssl/certs/ca-certificates.crt\nroot-user-action = ignore\n"
    build(BASE, files, DEBIAN, say)


def build(
    name: str,
    files: Mapping[str, bytes],
    parent: str,
    say: Say = silent,
    args: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Build `name` from an in-memory context and the Dockerfile's ARGs, unless the engine has just that already."""
    with _locked(name), boundary(EnvironmentFault, f"cannot build {name}"):
        recipe = _digest(files, parent, args)
        if _label(name) == recipe:
            return
        say(f"building {name}")
        for wait in (*WAITS, None):
            log = _run_build(name, files, recipe, args)
            if not log:
                return
            if wait is None or not any(sign in log.lower() for sign in NETWORK):
                raise EnvironmentFault(f"building {name} failed: {log}")
            say(f"building {name} again in {wait:.0f} s, the network failed")
            time.sleep(wait)


def _run_build(name: str, files: Mapping[str, bytes], recipe: str, args: Mapping[str, str]) -> str:
    """What failed, with the end of the log; empty when the image is there."""
    lines: list[str] = []
    try:
        steps: Any = client().api.build(
            fileobj=_archive(files),
            custom_context=True,
            tag=name,
            buildargs=dict(args),
            labels={RECIPE: recipe, "aem": __version__},
            rm=True,
            forcerm=True,
            decode=True,
        )
    except RuntimeError as error:  # docker-py asks every credential helper of the user's before it builds
        raise EnvironmentFault(f"cannot build {name}: {explained(error)}") from None
    for step in steps:
        lines.append(step.get("stream", ""))
        if "error" in step:
            return f"{step['error'].strip()}; the log ends: {''.join(lines)[-1500:].strip()}"
    return ""


def _debian(say: Say) -> None:
    """Make `aem/debian:bookworm` present: pulled where a registry answers, else by debootstrap (as root)."""
    with _locked(DEBIAN), boundary(EnvironmentFault, f"cannot make {DEBIAN}"):
        if _label(DEBIAN) is not None:
            return
        if os.geteuid() == 0 and shutil.which("debootstrap"):
            say(f"making {DEBIAN} with debootstrap (about a minute, once)")
            _debootstrap()
            return
        say(f"pulling {PUBLIC_DEBIAN}")
        try:
            name, tag = PUBLIC_DEBIAN.split(":")
            for step in client().api.pull(name, tag=tag, stream=True, decode=True):
                raise_for(step)
            image = client().images.get(PUBLIC_DEBIAN)
        except Exception as error:
            why = explained(error)
            raise EnvironmentFault(
                f"{PUBLIC_DEBIAN} cannot be pulled ({why}); on Debian/Ubuntu, as root: apt-get install debootstrap"
            ) from None
        image.tag(*DEBIAN.split(":"))


def _debootstrap() -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        root = Path(folder) / "root"
        mirror = [os.environ[MIRROR]] if os.environ.get(MIRROR) else []  # debootstrap's own default otherwise
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", str(root), *mirror], capture_output=True, text=True
        )
        if made.returncode:
            raise EnvironmentFault(f"debootstrap failed: {(made.stdout + made.stderr).strip()[-500:]}")
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(archive), "."], check=True)
        with archive.open("rb") as data:
            import_root(data.read(), DEBIAN, {RECIPE: "debootstrap"})


def import_root(archive: bytes, name: str, labels: Mapping[str, str]) -> None:
    """Make an image of a tar archive of a root file system."""
    repository, tag = name.split(":")
    importing: Any = client().api
    changes = [f"LABEL {label}={value}" for label, value in labels.items()]
    said = importing.import_image_from_data(archive, repository=repository, tag=tag, changes=changes)
    if _label(name) is None:  # Podman drops the tag of an import: it is given to the id that came back
        importing.tag(imported_id(said), repository, tag)


def imported_id(said: str) -> str:
    """The id of the image in the answer to an import; EnvironmentFault with the engine's words where there is none."""
    found = re.findall(r"(?:sha256:)?[0-9a-f]{64}", said if isinstance(said, str) else str(said))
    if not found:
        raise EnvironmentFault(f"the engine imported no image: {str(said).strip()[-300:]}")
    return str(found[-1])


def _parent(dockerfile: str, args: Mapping[str, str]) -> str:
    """The image of the last FROM line, in which arguments of the build may stand."""
    parents = [line.split()[1] for line in dockerfile.splitlines() if line.upper().startswith("FROM ")]
    if not parents:
        raise EnvironmentFault("the Dockerfile has no FROM line")
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: args.get(found[1] or found[2], found[0]), parents[-1])


def _label(name: str) -> str | None:
    """The recipe label of a local image ("" when it has none), None when there is no such image."""
    from docker.errors import ImageNotFound

    try:
        labels: dict[str, str] = client().images.get(name).labels
    except ImageNotFound:
        return None
    return labels.get(RECIPE, "")


def _digest(files: Mapping[str, bytes], parent: str, args: Mapping[str, str]) -> str:
    """SHA-256 over context, arguments and parent: the parent by recipe label where it was built here, else by id."""
    above = _label(parent) or ""
    digest = hashlib.sha256(f"{parent} {above}".encode())
    for name, value in sorted(args.items()):
        digest.update(f"\n{name}={value}".encode())
    for name, data in sorted(files.items()):
        digest.update(f"\n{name} {hashlib.sha256(data).hexdigest()}".encode())
    return digest.hexdigest()


def _archive(files: Mapping[str, bytes]) -> io.BytesIO:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)  # times at zero, so that the engine's layer cache can hit
            entry.size, entry.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    spool.seek(0)
    return spool


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lock of one image name, across threads and processes of this user."""
    with (cache_folder() / f"{name.replace('/', '_').replace(':', '_')}.lock").open("w") as handle:
        lock(handle, wait=True)
        yield
