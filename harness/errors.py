"""One small family of errors, named by the boundary that was crossed.

A fault is never a wrong answer: everything that goes wrong outside the policy is raised as one of these, travels
up unhandled, and is recorded once, by the runner. What the policy itself gets wrong is an `Outcome`, not an error.
"""

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Exit codes of every `aem` command: `aem gate` uses all five, `aem train` with a gate 1 too, the others 0, 3 and 4.
EXIT_OK, EXIT_BLOCK, EXIT_INCONCLUSIVE, EXIT_INFRASTRUCTURE, EXIT_USAGE = 0, 1, 2, 3, 4


class AemError(Exception):
    """Base of the family. `str(error)` is one clear line: what is wrong, and how to repair it."""

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


class ContainerDied(EnvironmentFault):
    """A container was killed, stopped, restarted, paused or removed by somebody who told the engine so, or may have:
    nothing that runs inside is to blame. One that ended though the engine was told nothing is an EnvironmentFault."""


class SiteLost(EnvironmentFault):
    """The engine or machine where something was worked went away meanwhile: it is done again elsewhere, at no cost."""


class ImageAway(EnvironmentFault):
    """An image cannot be had at one engine, whose registry is away: the work is done elsewhere, at no cost."""


class ImageNowhere(ImageAway):
    """An image that one engine has not and finds in no registry: another one may have it."""


class NoSite(EnvironmentFault):
    """No engine or machine is left that work could be done at: the run ends, and nothing of it counts as lost."""


class PolicyFault(AemError):
    """The model server failed (unreachable, out of memory, HTTP 5xx after retries): infrastructure, not the model."""

    boundary = "policy"


class ServerAway(PolicyFault):
    """No server answers: refused or broken connections, or a gateway that finds nobody behind it (502, 503, 504)."""


class GradingFault(AemError):
    """The grader could not reach a verdict for reasons that are not the patch."""

    boundary = "grading"


class HostFault(AemError):
    """This machine failed: a full disk, no memory, no threads or files left. Infrastructure, whatever ran into it."""

    boundary = "host"


class DiskFault(HostFault):
    """A disk takes no more: full, over its quota, read-only, or broken."""


class DriftFault(AemError):
    """Two arms differ in more than their weights (grader, dataset, scaffold, server, images): no verdict on those."""

    boundary = "comparison"


def of_infrastructure(fault: AemError) -> bool:
    """May the same work succeed later? Not where a setting or a file is wrong."""
    return fault.exit_code == EXIT_INFRASTRUCTURE


def summed_up(problems: Sequence[str], most: int = 3) -> list[str]:
    """A line each for a few problems of a file, one line with their number and the first of them for many."""
    if len(problems) <= most:
        return list(problems)
    return [f"{len(problems)} entries have a problem: {'; '.join(problems[:most])}; and {len(problems) - most} more"]


@contextmanager
def boundary(kind: type[AemError], what: str) -> Iterator[None]:
    """Classify whatever escapes the block as `kind`, keeping the cause; errors of the family pass unchanged."""
    try:
        yield
    except AemError:
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error


# What the kernel refuses for want of a resource or because a disk or network is broken; an agent's own slip is none.
_DISK_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}
_HOST_ERRNO = {
    *_DISK_ERRNO,
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS),
}
_ENGINE_CLIENT = {"docker", "requests", "urllib3"}  # packages whose own exceptions tell of the engine's connection


def fault_in(error: BaseException) -> AemError | None:
    """The fault behind an exception that came out of an agent or of our own code; None when it is the code's own.

    Looks along causes and contexts, since an agent may have wrapped what it was told.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, AemError):
            return cause
        if isinstance(cause, MemoryError) or "can't start new thread" in str(cause):
            return HostFault(in_one_line(cause))
        if of_disk(cause):
            return DiskFault(in_one_line(cause))
        if isinstance(cause, OSError) and (cause.errno in _HOST_ERRNO or isinstance(cause, ConnectionError)):
            return HostFault(in_one_line(cause))
        if type(cause).__module__.partition(".")[0] in _ENGINE_CLIENT:
            return EnvironmentFault(f"the engine's client: {in_one_line(cause)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def of_disk(error: BaseException) -> bool:
    """Does this exception say that a disk takes no more?"""
    return isinstance(error, OSError) and error.errno in _DISK_ERRNO


def told_of(cause: str) -> AemError:
    """The fault of a grade's cause, "boundary: message"."""
    boundary, _, message = cause.partition(": ")
    kinds = {kind.boundary: kind for kind in (EnvironmentFault, PolicyFault, HostFault)}
    return kinds.get(boundary, GradingFault)(message)


def in_one_line(error: BaseException, most: int = 300) -> str:
    """The kind and the words of an exception, on one line of at most `most` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most].removesuffix(": ")


def counted(count: int, noun: str) -> str:
    """`1 rollout`, `2,341 rollouts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[object], most: int = 8) -> str:
    """`a, b and 3 more`."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


@contextmanager
def validating(
    kind: Callable[[str], Exception], where: str, hint: str = "", *, unnamed: Collection[str] = ()
) -> Iterator[None]:
    """Turn pydantic's refusal of the values that the block reads into `kind`: one line, `where: field: what is wrong`.

    `hint` is added at the end; `unnamed` are parts of the field's path that are no field (the tags of a union).
    """
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part not in unnamed)
        raise kind(f"{where}: {field}{': ' if field else ''}{_problem(first)}{hint}") from None


def _problem(first: Any) -> str:
    """What is wrong with one value in pydantic's words, and the value where they do not show it and it is short."""
    words: str = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return "there is no such field"
    given = first["input"]
    if first["type"] in ("value_error", "missing") or not isinstance(given, str | int | float | bool | None):
        return words
    return f"{words}, not {given!r}" if len(repr(given)) < 60 else words
