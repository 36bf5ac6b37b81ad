"""A document back to text that parses to the same document."""

from .lexer import COMMENT_CHARS, QUOTES
from .parser import GLOBAL


def dumps(document):
    """`document` as a configuration file; references stay references."""
    blocks = [_block(document, GLOBAL)]
    blocks += [f"[{section}]\n{_block(document, section)}" for section in document.sections()]
    return "\n".join(block for block in blocks if block)


def _block(document, section):
    prefix = f"{section}." if section else ""
    return "".join(f"{key} = {quote(document.raw(prefix + key))}\n" for key in document.keys(section))


def quote(text):
    """`text` as it must stand after the `=` to be read back unchanged."""
    if _is_plain(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _is_plain(text):
    if text != text.strip() or "\n" in text or "\t" in text:
        return False
    return text == "" or (text[0] not in QUOTES and not any(char in text for char in COMMENT_CHARS))
