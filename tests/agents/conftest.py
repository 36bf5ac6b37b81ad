"""A small image as the official ones are: /testbed at one commit, the environment `testbed`."""

import pytest

from tests.agents.workplace import BUGGY

IMAGE = "aem/test-agents:latest"
DOCKERFILE = """\
FROM aem/base:bookworm
COPY calc.py /testbed/calc.py
WORKDIR /testbed
RUN git init -q && git add -A && git commit -qm base
"""


@pytest.fixture(scope="session")
def testbed(engine: None) -> str:
    from aem_harness.harness.sandbox.build import BASE, build, build_base

    build_base()
    build(IMAGE, {"Dockerfile": DOCKERFILE.encode(), "calc.py": BUGGY.encode()}, BASE)
    return IMAGE
