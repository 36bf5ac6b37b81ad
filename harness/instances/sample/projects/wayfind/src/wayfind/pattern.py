"""One URL pattern, such as /users/<int:id>/files/<path:name>."""

import re
from urllib.parse import quote

from .converters import CONVERTERS, find_converter
from .errors import BuildError, PatternError

_PARAMETER = re.compile(r"<(?:(?P<kind>[a-z]+):)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)>")
_SAFE = "/-._~!$&'()*+,;=:@"  # what RFC 3986 lets stand in a path

STATIC_WEIGHT = 100


class Pattern:
    """A compiled pattern: `match` takes a path apart, `build` puts one together.

    `weight` orders patterns by how specific they are: a tuple with one number for each segment.
    """

    def __init__(self, text, converters=CONVERTERS):
        if not text.startswith("/"):
            raise PatternError(f"a pattern starts with a slash: {text!r}")
        self.text = text
        self.names = []
        self._parts = list(self._parse(text, converters))
        self._regex = re.compile("".join(self._part_regex(part) for part in self._parts))
        self.weight = tuple(self._segment_weight(segment) for segment in text.strip("/").split("/"))

    def __repr__(self):
        return f"Pattern({self.text!r})"

    def match(self, path):
        """{name: value} if the encoded `path` fits, else None."""
        found = self._regex.fullmatch(path)
        if not found:
            return None
        try:
            return {name: self._converters[name].decode(found[name]) for name in self.names}
        except ValueError:
            return None

    def build(self, params):
        """The encoded path with `params` put in; every name of the pattern must be there."""
        missing = [name for name in self.names if name not in params]
        if missing:
            raise BuildError(f"{self.text} needs {', '.join(missing)}")
        return "".join(part if isinstance(part, str) else self._build_part(*part, params) for part in self._parts)

    # ---

    def _parse(self, text, converters):
        """Static texts (encoded) and (name, converter, regex) triples, in order."""
        self._converters = {}
        position = 0
        for parameter in _PARAMETER.finditer(text):
            yield self._static(text[position : parameter.start()])
            name, kind = parameter["name"], parameter["kind"] or "str"
            if name in self._converters:
                raise PatternError(f"parameter {name!r} twice in {text!r}")
            try:
                converter, regex = find_converter(kind, converters)
            except KeyError:
                raise PatternError(f"unknown kind {kind!r} in {text!r}") from None
            self._converters[name] = converter
            self.names.append(name)
            yield name, converter, regex
            position = parameter.end()
        yield self._static(text[position:])

    def _static(self, text):
        if "<" in text or ">" in text:
            raise PatternError(f"not a parameter in {self.text!r}: {text!r}")
        return quote(text, safe=_SAFE + "%")

    @staticmethod
    def _part_regex(part):
        if isinstance(part, str):
            return re.escape(part)
        name, converter, _ = part
        return f"(?P<{name}>{converter.regex})"

    def _build_part(self, name, converter, regex, params):
        try:
            encoded = converter.encode(params[name])
        except (TypeError, ValueError) as error:
            raise BuildError(f"{name} of {self.text}: {error}") from None
        if not regex.fullmatch(encoded):
            raise BuildError(f"{name} of {self.text} cannot be {params[name]!r}")
        return encoded

    def _segment_weight(self, segment):
        weights = [self._converters[found["name"]].weight for found in _PARAMETER.finditer(segment)]
        return min(weights, default=STATIC_WEIGHT)
