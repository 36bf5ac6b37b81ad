"""One small family of errors, named by the boundary that was crossed.

A fault is never a wrong answer: everything that goes wrong outside the policy is raised as one of these, travels
up unhandled, and is recorded once, by the runner. What the policy itself gets wrong is an `Outcome`, not an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager

# Exit codes of every `aem` command; `aem gate` uses all five, the others 0, 3 and 4.
EXIT_OK, EXIT_BLOCK, EXIT_INCONCLUSIVE, EXIT_INFRASTRUCTURE, EXIT_USAGE = 0, 1, 2, 3, 4


class AemError(Exception):
    """Base of the family. `str(error)` is one clear line: what is wrong, and how to mend it."""

    boundary = "harness"
    exit_code = EXIT_INFRASTRUCTURE


class ConfigError(AemError):
    """The user's options, run configuration or checkpoint card make no sense."""

    boundary = "config"
    exit_code = EXIT_USAGE


class DataError(AemError):
    """A dataset row, predictions file, journal or log is not what its format promises."""

    boundary = "data"
    exit_code = EXIT_USAGE


class EnvironmentFault(AemError):
    """The container engine, an image or a running container failed: infrastructure, never an observation."""

    boundary = "environment"


class PolicyFault(AemError):
    """The model server failed (unreachable, out of memory, HTTP 5xx after retries): infrastructure, not the model."""

    boundary = "policy"


class GradingFault(AemError):
    """The grader could not reach a verdict for reasons that are not the patch."""

    boundary = "grading"


class DriftFault(AemError):
    """Two arms differ in more than their weights (grader, dataset, scaffold, server, images): no verdict on those."""

    boundary = "comparison"


@contextmanager
def boundary(kind: type[AemError], what: str) -> Iterator[None]:
    """Classify whatever escapes the block as `kind`, keeping the cause; errors of the family pass unchanged."""
    try:
        yield
    except AemError:
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error
