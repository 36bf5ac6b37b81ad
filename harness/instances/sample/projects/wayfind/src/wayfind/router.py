"""Routes by path and method."""

from dataclasses import dataclass, field

from .converters import CONVERTERS
from .errors import BuildError, MethodNotAllowed, NotFound, PatternError
from .pattern import Pattern
from .query import build_query, split_target


@dataclass(frozen=True)
class Route:
    method: str
    pattern: Pattern
    handler: object
    name: str = ""


@dataclass(frozen=True)
class Match:
    """The route that was found, the parameters of the path, and those of the query (each a list)."""

    route: Route
    params: dict = field(default_factory=dict)
    query: dict = field(default_factory=dict)

    @property
    def handler(self):
        return self.route.handler


class Router:
    """Routes, most specific first. A GET route answers HEAD as well."""

    def __init__(self, converters=None):
        self._converters = {**CONVERTERS, **(converters or {})}
        self._routes = []
        self._named = {}

    def add(self, method, pattern, handler, name=""):
        """Add a route; a name may be given once for each path."""
        route = Route(method.upper(), Pattern(pattern, self._converters), handler, name)
        if name:
            known = self._named.setdefault(name, route)
            if known.pattern.text != pattern:
                raise PatternError(f"the name {name!r} already belongs to {known.pattern.text}")
        self._routes.append(route)
        # Stable: among equally specific patterns the first added stays first.
        self._routes.sort(key=lambda route: [-weight for weight in route.pattern.weight])

    def mount(self, prefix, other):
        """Add all routes of another router under a prefix; their names get it too, as `prefix.name`."""
        label = prefix.strip("/").replace("/", ".")
        for route in other._routes:
            name = f"{label}.{route.name}" if route.name else ""
            self.add(route.method, prefix.rstrip("/") + route.pattern.text, route.handler, name)

    def match(self, method, target):
        """The route for a request target such as /users/7?tab=posts, with its parameters."""
        path, query = split_target(target)
        method = method.upper()
        allowed = set()
        for route in self._routes:
            params = route.pattern.match(path)
            if params is None:
                continue
            if method in _methods(route):
                return Match(route, params, query)
            allowed |= _methods(route)
        if allowed:
            raise MethodNotAllowed(method, path, allowed)
        raise NotFound(f"{method} {path}")

    def url_for(self, name, /, **params):
        """The URL of a named route. Parameters that are not in its path go into the query."""
        if name not in self._named:
            raise BuildError(f"no route is named {name!r}")
        pattern = self._named[name].pattern
        rest = {key: value for key, value in params.items() if key not in pattern.names}
        return pattern.build(params) + build_query(rest)

    def allowed_methods(self, target):
        """The methods that some route has for this path, sorted."""
        path, _ = split_target(target)
        routes = [route for route in self._routes if route.pattern.match(path) is not None]
        return sorted({method for route in routes for method in _methods(route)})


def _methods(route):
    return {"GET", "HEAD"} if route.method == "GET" else {route.method}
