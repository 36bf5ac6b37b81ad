"""Containers from the base image, which has bash, git, perl and a python environment and no repository of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aem_harness.harness.sandbox.build import BASE, build_base
from aem_harness.harness.sandbox.container import Sandbox

LABEL = "aem.test"


@pytest.fixture(scope="session")
def base(engine: None) -> str:
    build_base()
    return BASE


@pytest.fixture
def open_sandbox(base: str) -> Iterator[Callable[..., Sandbox]]:
    """Opens sandboxes that are closed when the test ends."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Sandbox:
            options = {"workdir": "/", "labels": {LABEL: "1"}, **options}
            return stack.enter_context(Sandbox(base, **options))

        yield open_one


@pytest.fixture(scope="module")
def sandbox(base: str) -> Iterator[Sandbox]:
    """One container shared by the tests of a file that leave nothing behind."""
    with Sandbox(base, workdir="/", labels={LABEL: "1"}) as shared:
        yield shared
