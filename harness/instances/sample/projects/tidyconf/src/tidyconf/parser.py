"""Logical lines to a mapping of sections."""

import re

from .errors import ParseError
from .lexer import QUOTES, logical_lines

_SECTION = re.compile(r"\[\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}

GLOBAL = ""


def parse(text):
    """`text` as {section: {key: raw value}}; keys before the first section header are in section ''."""
    sections = {GLOBAL: {}}
    section = GLOBAL
    for line in logical_lines(text):
        header = _SECTION.fullmatch(line.text)
        if header:
            section = header.group(1)
            sections.setdefault(section, {})
            continue
        key, separator, value = line.text.partition("=")
        key = key.strip()
        if not separator:
            raise ParseError(f"expected 'key = value' or '[section]', found {line.text!r}", line.number)
        if not _KEY.fullmatch(key):
            raise ParseError(f"not a key: {key!r}", line.number)
        if key in sections[section]:
            raise ParseError(f"key {key!r} is set twice in section [{section}]", line.number)
        sections[section][key] = unquote(value.strip(), line.number)
    return sections


def unquote(value, line):
    """The text between the quotes of a quoted value, escapes resolved; any other value as it is."""
    if not value or value[0] not in QUOTES:
        return value
    quote = value[0]
    result = []
    position = 1
    while position < len(value):
        char = value[position]
        if char == quote:
            rest = value[position + 1 :].strip()
            if rest.startswith(","):
                return value  # a list of quoted items: taken apart when it is read
            if rest:
                raise ParseError(f"text after the closing quote: {rest!r}", line)
            return "".join(result)
        if char == "\\" and position + 1 < len(value):
            position += 1
            char = _ESCAPES.get(value[position], "\\" + value[position])
        result.append(char)
        position += 1
    raise ParseError("the quoted value is not closed", line)
