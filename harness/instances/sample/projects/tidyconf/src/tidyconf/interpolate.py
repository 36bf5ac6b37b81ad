"""${section.key} and ${env:NAME:-default} references in values."""

import os
import re

from .errors import InterpolationError, MissingKey

_REFERENCE = re.compile(r"\$\$|\$\{([^${}]*)\}")


class Interpolator:
    """Resolves references against a `lookup(key) -> raw text` function, keeping what it has resolved.

    The owner of the values calls `forget()` whenever one of them changes: a resolved value can hang on any other.
    """

    def __init__(self, lookup, environ=None):
        self._lookup = lookup
        self._environ = os.environ if environ is None else environ
        self._resolved = {}

    def resolve(self, key):
        """The value of `key` with all its references replaced."""
        return self._resolve(key, ())

    def forget(self):
        """Drop every resolved value."""
        self._resolved.clear()

    def _resolve(self, key, trail):
        if key in trail:
            raise InterpolationError("reference loop: " + " -> ".join((*trail, key)))
        if key not in self._resolved:
            raw = self._lookup(key)
            self._resolved[key] = _REFERENCE.sub(lambda match: self._replace(match, (*trail, key)), raw)
        return self._resolved[key]

    def _replace(self, match, trail):
        if match.group() == "$$":
            return "$"
        name = match.group(1).strip()
        if name.startswith("env:"):
            return self._from_environment(name[4:], trail)
        try:
            return self._resolve(name, trail)
        except MissingKey as error:
            if error.key != name:
                raise
            raise InterpolationError(f"{trail[-1]} refers to {name}, which is not set") from None

    def _from_environment(self, name, trail):
        name, has_default, default = name.partition(":-")
        if name in self._environ:
            return self._environ[name]
        if has_default:
            return default
        raise InterpolationError(f"{trail[-1]} refers to the environment variable {name}, which is not set")
