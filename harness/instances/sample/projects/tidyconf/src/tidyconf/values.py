"""Text to typed values. Every function takes the key (for the message) and the text."""

import re

from .errors import ValueFormatError

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}

_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*)")
_PREFIXES = {"0x": 16, "0o": 8, "0b": 2}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def to_bool(key, text):
    lowered = text.strip().lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise ValueFormatError(key, text, "yes or no")


def to_int(key, text):
    """Decimal, or 0x, 0o and 0b with the prefix; underscores between digits are allowed."""
    match = _INTEGER.fullmatch(text.strip())
    if not match:
        raise ValueFormatError(key, text, "an integer")
    sign, digits = match.groups()
    try:
        value = int(digits, _PREFIXES.get(digits[:2].lower(), 10))
    except ValueError:
        raise ValueFormatError(key, text, "an integer") from None
    return -value if sign == "-" else value


def to_float(key, text):
    try:
        return float(text)
    except ValueError:
        raise ValueFormatError(key, text, "a number") from None


def to_duration(key, text):
    """Seconds: "90s", "1h30m", "250ms"; a bare number is seconds."""
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueFormatError(key, text, "a duration such as 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def to_size(key, text):
    """Bytes: "512", "10kB" (1000), "10KiB" (1024)."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueFormatError(key, text, "a size such as 10MiB")
    number, prefix, binary = match.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** _POWERS[prefix.lower()])


def to_list(key, text):
    """Items separated by commas or line ends; quotes protect commas; empty items are dropped."""
    items = []
    item = ""
    quote = None
    for char in text.replace("\n", ","):
        if quote:
            if char == quote:
                quote = None
            else:
                item += char
        elif char in "\"'" and not item.strip():
            quote = char
            item = ""
        elif char == ",":
            items.append(item.strip())
            item = ""
        else:
            item += char
    if quote:
        raise ValueFormatError(key, text, "a list with closed quotes")
    items.append(item.strip())
    return [entry for entry in items if entry]
