"""Fixtures every room uses."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Examples are never timed: machines are shared, and a slow one is not a failure.
settings.register_profile("aem", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aem")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data (dataset rows, real grading logs, leaderboard outcomes); skips where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"public test data not found at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers; skips with the reason where none does."""
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
