"""What can go wrong in routing."""


class RoutingError(Exception):
    """Base of all errors of this package."""


class PatternError(RoutingError, ValueError):
    """A pattern that cannot be understood."""


class NotFound(RoutingError):
    """No route has this path."""

    status = 404


class MethodNotAllowed(RoutingError):
    """Routes have this path, but none for the method. `allowed` names the methods there are, sorted."""

    status = 405

    def __init__(self, method, path, allowed):
        self.allowed = sorted(allowed)
        super().__init__(f"{method} {path}: allowed are {', '.join(self.allowed)}")


class BuildError(RoutingError):
    """A URL that cannot be built: no such route, or parameters that do not fit it."""
