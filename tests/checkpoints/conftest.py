"""Fixtures of the tests that run the real vLLM."""

from pathlib import Path

import pytest

from aem_harness.aem_checkpoints.command import find_vllm
from aem_harness.harness.errors import ConfigError
from tests.checkpoints.tiny import tiny_adapter, tiny_checkpoint


@pytest.fixture(scope="module")
def vllm() -> None:
    """An installed vLLM; skips with the reason where there is none."""
    try:
        find_vllm()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint, and a random adapter on it."""
    pytest.importorskip("torch", reason="the tiny checkpoint is made with torch")
    folder = tmp_path_factory.mktemp("registry")
    tiny_checkpoint(folder)
    tiny_adapter(folder)
    return folder
