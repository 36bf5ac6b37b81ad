"""What may stand for a parameter in a path, and its value."""

import re
import uuid
from urllib.parse import quote, unquote


class Converter:
    """One kind of parameter: a regular expression over the encoded path, and the two ways of conversion.

    `weight` says how specific the kind is: of two patterns alike, the one with the greater weights is tried first.
    """

    regex = "[^/]+"
    weight = 10
    safe = ""  # characters that stay as they are in a path

    def to_python(self, text):
        """Decoded text -> value; ValueError if it is none."""
        return text

    def to_text(self, value):
        """Value -> text, not yet encoded."""
        return str(value)

    def decode(self, encoded):
        """What stands in the path -> value."""
        return self.to_python(unquote(encoded))

    def encode(self, value):
        """Value -> what has to stand in the path."""
        return quote(self.to_text(value), safe=self.safe)


class IntConverter(Converter):
    regex = "[0-9]+"
    weight = 30

    def to_python(self, text):
        return int(text)

    def to_text(self, value):
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise ValueError(f"not a whole number from 0: {value!r}")
        return str(int(value))


class SlugConverter(Converter):
    regex = "[A-Za-z0-9_-]+"
    weight = 20


class UUIDConverter(Converter):
    regex = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    weight = 40

    def to_python(self, text):
        return uuid.UUID(text)


class PathConverter(Converter):
    """The rest of the path, slashes and all."""

    regex = ".+"
    weight = 0
    safe = "/"


CONVERTERS = {
    "str": Converter(),
    "int": IntConverter(),
    "slug": SlugConverter(),
    "uuid": UUIDConverter(),
    "path": PathConverter(),
}


def find_converter(name, converters):
    """The converter of a name; KeyError if there is none. Held to a whole-text match when building."""
    converter = converters[name]
    return converter, re.compile(converter.regex)
