"""Call arguments to cache keys."""

from weakref import ref

_NAMES_FOLLOW = object()  # parts positional from keyword arguments, so that f(1, "b", 2) is not f(1, b=2)


class Identity:
    """Stands in a key for an object that cannot be hashed: equal only to itself, while it lives.

    The address of an object is used again once the object is gone; a weak reference tells the two apart. Objects that
    take no weak reference are held.
    """

    __slots__ = ("_address", "_target")

    def __init__(self, target):
        self._address = id(target)
        try:
            self._target = ref(target)
        except TypeError:
            self._target = lambda: target

    def __hash__(self):
        return hash(self._address)

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, Identity):
            return NotImplemented
        mine, theirs = self._target(), other._target()
        return mine is not None and mine is theirs


def make_key(args, kwargs, typed=False):
    """A hashable key that is equal for equal calls only.

    Keyword arguments count in any order. Lists, dicts and sets count by content; other unhashable objects by identity.
    With `typed`, 1 and 1.0 and True are different arguments.
    """
    key = tuple(freeze(arg) for arg in args)
    if kwargs:
        key += (_NAMES_FOLLOW, *((name, freeze(kwargs[name])) for name in sorted(kwargs)))
    if typed:
        key += (_NAMES_FOLLOW, *(type(arg) for arg in args), *(type(kwargs[name]) for name in sorted(kwargs)))
    return key


def freeze(value):
    """`value` as something hashable: containers by content and kind, anything else unhashable by identity."""
    if isinstance(value, dict):
        return (dict, frozenset((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, list):
        return (list, *map(freeze, value))
    if isinstance(value, (set, frozenset)):
        return (set, frozenset(map(freeze, value)))
    if isinstance(value, tuple):
        return (tuple, *map(freeze, value))
    try:
        hash(value)
    except TypeError:
        return Identity(value)
    return value
