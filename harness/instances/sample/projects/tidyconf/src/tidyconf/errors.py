"""What can go wrong, with the place where it went wrong."""


class ConfError(Exception):
    """Base of all errors of this package."""


class ParseError(ConfError):
    """The text is not a configuration file. Carries the line number, counted from 1."""

    def __init__(self, message, line):
        super().__init__(f"line {line}: {message}")
        self.line = line


class MissingKey(ConfError, KeyError):
    """A key that no layer defines."""

    def __init__(self, key):
        super().__init__(key)
        self.key = key

    def __str__(self):
        return f"no such key: {self.key}"


class InterpolationError(ConfError):
    """A ${reference} that leads nowhere or back to itself."""


class ValueFormatError(ConfError, ValueError):
    """A value that is not of the type that was asked for."""

    def __init__(self, key, text, expected):
        super().__init__(f"{key}: expected {expected}, got {text!r}")
        self.key = key
