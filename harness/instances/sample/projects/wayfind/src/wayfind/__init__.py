"""URL patterns: matching, dispatching by method, and building URLs back."""

from .converters import Converter
from .errors import BuildError, MethodNotAllowed, NotFound, PatternError, RoutingError
from .pattern import Pattern
from .router import Match, Router

__all__ = [
    "BuildError",
    "Converter",
    "Match",
    "MethodNotAllowed",
    "NotFound",
    "Pattern",
    "PatternError",
    "Router",
    "RoutingError",
]
__version__ = "1.3.0"
