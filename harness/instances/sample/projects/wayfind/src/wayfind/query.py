"""Query strings."""

from urllib.parse import parse_qsl, urlencode


def split_target(target):
    """"/path?a=1#x" -> ("/path", {"a": ["1"]}); the fragment falls off."""
    target = target.partition("#")[0]
    path, _, query = target.partition("?")
    values = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, []).append(value)
    return path or "/", values


def build_query(params):
    """{"a": 1, "b": [2, 3], "c": None} -> "?a=1&b=2&b=3"; empty without anything to say."""
    pairs = []
    for name, value in params.items():
        if value is None:
            continue
        many = value if isinstance(value, (list, tuple)) else [value]
        pairs.extend((name, _text(each)) for each in many)
    return "?" + urlencode(pairs) if pairs else ""


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
