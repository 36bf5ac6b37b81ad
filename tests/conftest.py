"""Fixtures that all tests use."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

# Before torch and numpy are imported: the tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell without job control starts what it puts into the background with interrupts ignored, which commands inherit:
# tests that interrupt one would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

# Examples are never timed: machines are shared, and a slow one is not a failure. They are the same in every run;
# `make fuzz` draws others.
settings.register_profile("aem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("fuzz", settings.get_profile("aem"), derandomize=False, max_examples=1000)
settings.load_profile("aem")

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AEM_TEST_DATA", ROOT.parent / "shared"))
SET_BY_USERS = (
    *(
        "AEM_DISK_BUDGET",
        "AEM_EVICT_OTHERS",
        "AEM_IMAGE_MIRROR",
        "AEM_REGISTRY",
        "AEM_SERVER",
        "COLUMNS",
        "FORCE_COLOR",
    ),
    *("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RAY_ADDRESS"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests take long come first: a long one that begins last would run on one core alone."""
    weights = {"slow": 10, "docker": 1}
    weight = Counter[Path]()
    for item in items:
        weight[item.path] += max((weights.get(mark.name, 0) for mark in item.iter_markers()), default=0)
    items.sort(key=lambda item: -weight[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data (dataset rows, real grading logs, leaderboard outcomes); skips where it is missing."""
    if not (DATA / "data").is_dir():
        pytest.skip(f"no public test data at {DATA}: set AEM_TEST_DATA (see CONTRIBUTING.md)")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def _apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What whoever runs the tests has set for their own commands changes no test; no test adds to their gates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in SET_BY_USERS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes a name that no other test uses at the same time, in this process or another one on the same engine."""
    return lambda word: f"{word}-{uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers; skips with the reason where none does."""
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
