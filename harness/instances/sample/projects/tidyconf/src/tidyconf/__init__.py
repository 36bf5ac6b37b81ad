"""Layered configuration files with typed access and interpolation."""

from .document import Document
from .dump import dumps
from .errors import ConfError, InterpolationError, MissingKey, ParseError
from .parser import parse

__all__ = ["ConfError", "Document", "InterpolationError", "MissingKey", "ParseError", "dumps", "load", "loads"]
__version__ = "0.8.3"


def loads(text, *more):
    """A document from one or several texts; later texts override earlier ones."""
    document = Document(parse(text))
    for layer in more:
        document.merge(Document(parse(layer)))
    return document


def load(path, *more):
    """A document from one or several files; later files override earlier ones."""
    texts = []
    for name in (path, *more):
        with open(name, encoding="utf-8") as stream:
            texts.append(stream.read())
    return loads(*texts)
