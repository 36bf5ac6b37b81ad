"""Real SWE-bench Verified instances as local images, built from sdists on the package index; no registry, no GitHub.

Usage: `python -m tests.verified.build [INSTANCE ...]` (all recipes of `instances.toml` without arguments).

The images obey the official contract: the official name, /testbed a git repository at the base commit, a conda-style
environment `testbed`, and the official evaluation script runs in them unchanged. What differs: the tree is that of a
released sdist to which the gold and test patches apply, so a few tests may behave otherwise (a gold run decides which
instances are listed), and the CPython is pyenv's. The base commit of the row is made resolvable by a replace ref
(git-replace(1)) from its id to the tree's own commit, so neither row nor evaluation script is touched.

Layers, each an image of its own, cached by a digest of everything that goes into it (label `aem.recipe`):
base -> python -> environment (pinned packages) -> project (sdist, installed) -> instance (one ref). All carry the label
`aem.standin`; an image of the official name without it (a real one) is used as it is and never overwritten.
"""

import fcntl
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

from harness.instances.rows import default_image

HERE = Path(__file__).parent
ROWS = HERE.parents[1].parent / "shared" / "data" / "swe-bench-verified.jsonl.gz"
CACHE = Path.home() / ".cache" / "aem-harness" / "sdists"
PYENV = Path.home() / ".pyenv" / "versions"
INDEX = "https://pypi.org/simple/"
PREFIX = "/opt/miniconda3/envs/testbed"
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
STANDIN, RECIPE = "aem.standin", "aem.recipe"

Files = Mapping[str, bytes | Path]  # name in the build context -> content, or a file or folder of this machine


class Unavailable(Exception):
    """Something the builder needs is not on this machine or not reachable; the text says what."""


@dataclass(frozen=True)
class Layer:
    """One image to be built: `dockerfile` follows the FROM line, `files` are its build context."""

    name: str
    parent: "Layer | str"
    dockerfile: str
    files: Files = field(default_factory=dict)


# --- what there is to build -----------------------------------------------------------------------------------------


@cache
def recipes() -> dict[str, Any]:
    """`instances.toml`: tables `environments`, `projects` (one per sdist) and `instances` (id -> project)."""
    return tomllib.loads((HERE / "instances.toml").read_text())


def instance_ids() -> list[str]:
    return sorted(recipes()["instances"])


def rows(ids: Iterable[str]) -> list[dict[str, Any]]:
    """The published dataset rows of these instances, untouched, in the order of `ids`."""
    if not ROWS.is_file():
        raise Unavailable(f"the dataset file {ROWS} is missing")
    with gzip.open(ROWS, "rt") as lines:
        by_id = {row["instance_id"]: row for row in map(json.loads, lines)}
    return [by_id[instance_id] for instance_id in ids]


def layer_of(row: Mapping[str, Any]) -> Layer:
    """The instance's image on top of its project's, in the official name."""
    project = project_layer(recipes()["instances"][row["instance_id"]])
    return Layer(
        name=default_image(row["instance_id"]),
        parent=project,
        dockerfile=f"RUN git -C /testbed update-ref refs/replace/{row['base_commit']} base",
    )


@cache
def project_layer(project: str) -> Layer:
    """The sdist's tree as a repository, installed the way the official images install it."""
    recipe = recipes()["projects"][project]
    environment = recipes()["environments"][recipe["environment"]]
    name, version = project.rsplit("-", 1)
    script = PROJECT_SCRIPT.format(
        version=version,
        complete=environment.get("complete", "").strip(),
        setup=environment.get("setup", "").strip(),
        install=environment["install"],
    )
    return Layer(
        name=f"aem/verified-project:{project.lower()}",
        parent=environment_layer(recipe["environment"]),
        dockerfile="COPY sdist.tar.gz setup.sh /tmp/\nRUN bash /tmp/setup.sh && rm /tmp/sdist.tar.gz /tmp/setup.sh\n"
        "WORKDIR /testbed",
        files={"sdist.tar.gz": sdist(name, version, recipe["sha256"]), "setup.sh": script.encode()},
    )


# The official instance script of swebench 4.1.0 (make_repo_script_list_py) with an sdist in place of the clone: the tag
# is for setuptools_scm, the exclude file stands for the .gitignore that sdists leave out.
PROJECT_SCRIPT = """set -euxo pipefail
mkdir /testbed
tar -xzf /tmp/sdist.tar.gz --strip-components=1 --no-same-owner -C /testbed
cd /testbed
rm -rf *.egg-info
{complete}
export GIT_AUTHOR_DATE="$(date -R -r PKG-INFO)" GIT_COMMITTER_DATE="$(date -R -r PKG-INFO)"
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=gc.auto GIT_CONFIG_VALUE_0=0  # no gc in the background of the build
git config --global user.email setup@swebench.config
git config --global user.name SWE-bench
git init --quiet --initial-branch main
printf '%s\\n' __pycache__/ '*.py[cod]' '*.egg-info/' '*.so' /build/ /dist/ .tox/ .pytest_cache/ >> .git/info/exclude
git add --force --all
git commit --quiet --message 'Base commit'
git tag base
git tag {version}
set +ux
source /opt/miniconda3/bin/activate
conda activate testbed
set -ux
{setup}
{install}
git commit --quiet --allow-empty --all --message SWE-bench
git gc --quiet
"""


@cache
def environment_layer(name: str) -> Layer:
    """Pinned packages, the complete set, so that nothing is left to resolve."""
    recipe = recipes()["environments"][name]
    pins = recipe["packages"].split()
    tools = [pin for pin in pins if pin.split("==")[0] in ("pip", "setuptools", "wheel")]
    python = f"{PREFIX}/bin/python -m pip install --quiet --no-cache-dir"
    return Layer(
        name=f"aem/verified-environment:{name}",
        parent=python_layer(recipe["python"]),
        dockerfile=f"RUN {python} {' '.join(tools)} && {python} --no-deps {' '.join(pins)}",
    )


@cache
def python_layer(version: str) -> Layer:
    """pyenv's CPython at the environment's prefix, the stand-in for conda, and the machine's own certificates."""
    found = sorted(PYENV.glob(f"{version}.*"))
    if not found:
        raise Unavailable(f"no CPython {version} under {PYENV} (pyenv install {version})")
    home = found[-1]
    # Its shared library is looked up at the prefix it was built for (rpath), its scripts name that prefix too.
    return Layer(
        name=f"aem/verified-python:{version}",
        parent=base_image(),
        dockerfile=f"""COPY certificates/ /usr/local/share/ca-certificates/
COPY python/ {PREFIX}/
COPY conda.sh /opt/miniconda3/etc/profile.d/
COPY activate /opt/miniconda3/bin/
RUN update-ca-certificates \\
 && printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\nroot-user-action = ignore\\n' > /etc/pip.conf \\
 && echo {PREFIX}/lib > /etc/ld.so.conf.d/testbed.conf && ldconfig \\
 && mkdir -p {home.parent} && ln -s {PREFIX} {home} \\
 && cd {PREFIX}/bin && rm -f pip* easy_install* && ln -sf python{version} python3 && ln -sf python3 python \\
 && ./python -m ensurepip --default-pip \\
 && printf 'source /opt/miniconda3/etc/profile.d/conda.sh\\nconda activate testbed\\n' > /root/.bashrc
ENV PATH=/opt/miniconda3/bin:$PATH
CMD ["/bin/bash"]""",
        files={
            "python": home,
            "conda.sh": HERE / "conda.sh",
            "activate": b'. /opt/miniconda3/etc/profile.d/conda.sh\nconda activate "$@"\n',
            "certificates/.keep": b"",
            **{f"certificates/{path.name}": path for path in LOCAL_CERTIFICATES.rglob("*.crt")},
        },
    )


def base_image() -> str:
    return "aem/verified-base:bookworm"


# --- the package index ----------------------------------------------------------------------------------------------


def sdist(name: str, version: str, sha256: str) -> Path:
    """The released source archive, from the cache or the index; checked against its digest."""
    path = CACHE / f"{name}-{version}.tar.gz"
    if not path.is_file():
        page = urljoin(INDEX, f"{name.lower()}/")
        links = re.findall(r'href="([^"#]+)', download(page).decode())
        link = next((link for link in links if link.rsplit("/", 1)[-1].lower() == path.name.lower()), None)
        if link is None:
            raise Unavailable(f"{page} does not list {path.name}")
        data = download(urljoin(page, link))
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(path)
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
        raise Unavailable(f"{path} has sha256 {found}, expected {sha256}; delete it to fetch it again")
    return path


def require_index() -> None:
    """Raise `Unavailable` unless the package index answers; evaluation scripts install from it too."""
    download(urljoin(INDEX, "pip/"))


def download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read()
            return data
    except OSError as error:
        raise Unavailable(f"cannot get {url}: {error}") from error


# --- building -------------------------------------------------------------------------------------------------------


def build(ids: Iterable[str], *, workers: int = 3, say: Callable[[str], None] = lambda line: None) -> list[str]:
    """Make the images of these instances present and current; their names, in the order of `ids`.

    Layers that several instances share are built once, one kind of layer after the other, `workers` at a time.
    Processes that build at the same time wait for each other. Raises `Unavailable` when Python, sdist, dataset or
    package index is missing, `RuntimeError` with the end of the log when a step fails.
    """
    import docker

    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        (CACHE / "lock").open("w") as lock,
        closing(docker.from_env(timeout=900)) as client,
        ThreadPoolExecutor(workers) as pool,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        layers = [layer_of(row) for row in rows(ids)]
        for wave in waves(layers):
            list(pool.map(lambda layer: ensure(client, layer, say), wave))
    return [layer.name for layer in layers]


def waves(layers: Iterable[Layer]) -> list[list[Layer]]:
    """The layers and all below them, by depth, each once: what can be built side by side."""
    by_depth: dict[int, dict[str, Layer]] = {}
    for layer in layers:
        chain = [layer]
        while isinstance(chain[-1].parent, Layer):
            chain.append(chain[-1].parent)
        for depth, member in enumerate(reversed(chain)):
            by_depth.setdefault(depth, {})[member.name] = member
    return [list(by_depth[depth].values()) for depth in sorted(by_depth)]


def ensure(client: Any, layer: Layer, say: Callable[[str], None]) -> None:
    """Build `layer` unless the engine has it with the same recipe; its parent must be there."""
    from docker.errors import BuildError, ImageNotFound

    parent = layer.parent if isinstance(layer.parent, str) else layer.parent.name
    dockerfile = f"FROM {parent}\n{layer.dockerfile}\n"
    digest = recipe_digest(client.images.get(parent).id, dockerfile, layer.files)
    try:
        labels = client.images.get(layer.name).labels
        if STANDIN not in labels or labels.get(RECIPE) == digest:
            return
    except ImageNotFound:
        pass
    started = time.monotonic()
    with context(dockerfile, layer.files) as archive:
        try:
            client.images.build(
                fileobj=archive,
                custom_context=True,
                tag=layer.name,
                labels={STANDIN: "1", RECIPE: digest},
                rm=True,
                forcerm=True,
            )
        except BuildError as error:
            log = "".join(entry.get("stream", "") for entry in error.build_log)
            raise RuntimeError(f"building {layer.name} failed: {error}\n{log[-4000:]}") from error
    say(f"{layer.name}: built in {time.monotonic() - started:.0f} s")


def recipe_digest(parent_id: str, dockerfile: str, files: Files) -> str:
    """sha256 over everything that decides the image; a folder counts by its path (pyenv's name the exact release)."""
    digest = hashlib.sha256(f"{parent_id}\n{dockerfile}".encode())
    for name, source in sorted(files.items()):
        if isinstance(source, Path):
            source = source.read_bytes() if source.is_file() else str(source).encode()
        digest.update(f"\n{name} {hashlib.sha256(source).hexdigest()}".encode())
    return digest.hexdigest()


@contextmanager
def context(dockerfile: str, files: Files) -> Iterator[IO[bytes]]:
    """A tar of the build context, open for reading."""
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w") as archive:
            for name, source in {"Dockerfile": dockerfile.encode(), **files}.items():
                if isinstance(source, bytes):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(source)
                    archive.addfile(entry, io.BytesIO(source))
                else:
                    archive.add(source, name, filter=leave_out)
        spool.seek(0)
        yield spool


def leave_out(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Of a pyenv Python: no installed packages (the index provides them), no test suite, no static library."""
    unwanted = re.search(
        r"/lib/python3[.\d]+/(site-packages/.|test/|config-|.*/tests?/)|/__pycache__(/|$)|/share/", entry.name
    )
    return None if unwanted else entry


if __name__ == "__main__":
    for image in build(sys.argv[1:] or instance_ids(), say=lambda line: print(line, flush=True)):
        print(image)
