"""Real SWE-bench Verified instances as local images, built from sdists on the package index; no registry, no GitHub.

Usage: `python -m tests.verified.build [INSTANCE ...]` (all recipes of `instances.toml` without arguments).

The images obey the official contract: the official name, /testbed a git repository at the base commit, a conda-style
environment `testbed`, and the official evaluation script runs in them unchanged. What differs: the tree is that of a
released sdist to which the gold and test patches apply, so a few tests may behave otherwise (a gold run decides which
instances are listed), and the CPython is pyenv's. The base commit of the row is made resolvable by a replace ref
(git-replace(1)) from its id to the tree's own commit, so neither row nor evaluation script is touched.

Layers, each an image of its own, cached by a digest of everything that goes into it (`harness.sandbox.build`):
base -> tools -> python -> environment (pinned packages) -> project (sdist, installed) -> instance (one ref). All carry
the label `aem.standin`; an image of the official name without it (a real one) is used as it is, never overwritten.
"""

import fcntl
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aem_harness.harness.instances.legacy import default_image
from aem_harness.harness.io import cache_folder
from aem_harness.harness.sandbox.build import BASE, Say, build_base, silent
from aem_harness.harness.sandbox.build import build as build_image
from aem_harness.harness.sandbox.engine import client
from tests.conftest import DATA

HERE = Path(__file__).parent
ROWS = DATA / "data" / "swe-bench-verified.jsonl.gz"
PYENV = Path.home() / ".pyenv" / "versions"
PREFIX = "/opt/miniconda3/envs/testbed"
STANDIN = "aem.standin"


class Unavailable(Exception):
    """Something the builder needs is not on this machine or not reachable; the text says what."""


@dataclass(frozen=True)
class Layer:
    """One image to be built: `dockerfile` follows the FROM line, `files` are its build context."""

    name: str
    parent: "Layer | str"
    dockerfile: str
    files: Mapping[str, bytes] = field(default_factory=dict)


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
    """pyenv's CPython at the environment's prefix, in place of the base image's own."""
    found = sorted(PYENV.glob(f"{version}.*"))
    if not found:
        raise Unavailable(f"no CPython {version} under {PYENV} (pyenv install {version})")
    home = found[-1]
    # Its shared library is looked up at the prefix it was built for (rpath), its scripts name that prefix too.
    return Layer(
        name=f"aem/verified-python:{version}",
        parent=tools_layer(),
        dockerfile=f"""ADD python.tar {PREFIX}/
RUN echo {PREFIX}/lib > /etc/ld.so.conf.d/testbed.conf && ldconfig \\
 && mkdir -p {home.parent} && ln -s {PREFIX} {home} \\
 && cd {PREFIX}/bin && rm -f pip* easy_install* && ln -sf python{version} python3 && ln -sf python3 python \\
 && ./python -m ensurepip --default-pip""",
        files={"python.tar": pack(home)},
    )


@cache
def tools_layer() -> Layer:
    """What official images have beyond our base: a compiler, and locales, which evaluation scripts generate."""
    return Layer(
        name="aem/verified-tools:bookworm",
        parent=BASE,
        dockerfile=f"RUN rm -rf {PREFIX} && apt-get update -qq \\\n"
        " && apt-get install -y -qq --no-install-recommends build-essential locales tzdata \\\n"
        " && rm -rf /var/lib/apt/lists/*",
    )


# --- the package index ----------------------------------------------------------------------------------------------


def sdist(name: str, version: str, sha256: str) -> bytes:
    """The released source archive, from the cache or by pip; checked against its digest."""
    path = cache_folder("sdists") / f"{name}-{version}.tar.gz"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            requirement = Path(folder) / "requirement.txt"
            requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
            pip_download(Path(folder), name, "--require-hashes", "--requirement", str(requirement))
            next(Path(folder).glob("*.tar.gz")).rename(path)
    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise Unavailable(f"{path} has sha256 {found}, expected {sha256}; delete it to fetch it again")
    return data


def require_index() -> None:
    """Raise `Unavailable` unless pip reaches its package index; evaluation scripts install from it too."""
    with tempfile.TemporaryDirectory() as folder:
        pip_download(Path(folder), "six", "six==1.17.0")


def pip_download(folder: Path, name: str, *what: str) -> None:
    """Put the sdist of a package into `folder`, from the index that this machine's pip uses. Raises `Unavailable`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words = [*pip, "--no-binary", name, "--dest", str(folder), *what]  # the tools that build it may be wheels
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"pip cannot download {' '.join(what)}: {done.stderr.strip()[-300:]}")


# --- building -------------------------------------------------------------------------------------------------------


def build(ids: Iterable[str], *, workers: int = 3, say: Say = silent) -> list[str]:
    """Make the images of these instances present and current; their names, in the order of `ids`.

    Layers that several instances share are built once, one kind of layer after the other, `workers` at a time; another
    process that builds the same waits. Raises `Unavailable` when Python, sdist, dataset or package index is missing,
    EnvironmentFault with the end of the log when a step fails.
    """
    with (cache_folder() / "verified.lock").open("w") as lock, ThreadPoolExecutor(workers) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_base(say)
        layers = [layer_of(row) for row in rows(ids)]
        for wave in waves(layers):
            list(pool.map(lambda layer: ensure(layer, say), wave))
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


def ensure(layer: Layer, say: Say) -> None:
    """Build `layer` unless the engine has it with the same recipe, or has the real image of that name."""
    from docker.errors import ImageNotFound

    try:
        if STANDIN not in client().images.get(layer.name).labels:
            return
    except ImageNotFound:
        pass
    parent = layer.parent if isinstance(layer.parent, str) else layer.parent.name
    dockerfile = f"FROM {parent}\nLABEL {STANDIN}=1\n{layer.dockerfile}\n"
    build_image(layer.name, {"Dockerfile": dockerfile.encode(), **layer.files}, parent, say)


def pack(folder: Path) -> bytes:
    """A folder as a tar, for ADD to unpack."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        archive.add(folder, ".", filter=leave_out)
    return spool.getvalue()


def leave_out(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Of a pyenv Python: no installed packages (the index provides them), no test suite, no static library."""
    unwanted = re.search(
        r"^\./lib/python3[.\d]+/(site-packages/.|test/|config-|.*/tests?/)|/__pycache__(/|$)|^\./share/", entry.name
    )
    return None if unwanted else entry


if __name__ == "__main__":
    for image in build(sys.argv[1:] or instance_ids(), say=lambda line: print(f"{line}\n", end="", flush=True)):
        print(image)
