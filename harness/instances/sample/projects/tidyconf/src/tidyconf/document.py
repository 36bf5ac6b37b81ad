"""The parsed configuration: look-up by dotted key, typed access, layers."""

from . import values
from .errors import MissingKey
from .interpolate import Interpolator
from .parser import GLOBAL

_UNSET = object()


class Document:
    """Sections of keys. A key is named `section.key`; sections may have dots themselves; `key` is global."""

    def __init__(self, sections=None, environ=None):
        self._sections = {name: dict(keys) for name, keys in (sections or {}).items()}
        self._sections.setdefault(GLOBAL, {})
        self._interpolator = Interpolator(self.raw, environ)

    # --- reading

    def raw(self, key):
        """The text of `key` as written, references unresolved."""
        section, name = self._split(key)
        try:
            return self._sections[section][name]
        except KeyError:
            raise MissingKey(key) from None

    def get(self, key, default=_UNSET):
        """The text of `key` with references resolved; `default` (if given) where no layer sets it."""
        return self._typed(key, default, lambda _, text: text)

    def get_int(self, key, default=_UNSET):
        return self._typed(key, default, values.to_int)

    def get_float(self, key, default=_UNSET):
        return self._typed(key, default, values.to_float)

    def get_bool(self, key, default=_UNSET):
        return self._typed(key, default, values.to_bool)

    def get_duration(self, key, default=_UNSET):
        return self._typed(key, default, values.to_duration)

    def get_size(self, key, default=_UNSET):
        return self._typed(key, default, values.to_size)

    def get_list(self, key, default=_UNSET):
        return self._typed(key, default, values.to_list)

    def sections(self):
        """Names of the named sections, in file order."""
        return [name for name in self._sections if name != GLOBAL]

    def keys(self, section=GLOBAL):
        """Names of the keys of a section, in file order."""
        return list(self._sections.get(section, {}))

    def __contains__(self, key):
        section, name = self._split(key)
        return name in self._sections.get(section, {})

    # --- changing

    def set(self, key, value):
        """Override `key` with a text."""
        section, name = self._split(key)
        self._sections.setdefault(section, {})[name] = value
        self._interpolator.forget()

    def remove(self, key):
        """Drop `key`; a later look-up raises MissingKey."""
        section, name = self._split(key)
        try:
            del self._sections[section][name]
        except KeyError:
            raise MissingKey(key) from None
        self._interpolator.forget()

    def merge(self, other):
        """Override with every key that `other` sets. `other` is left as it is."""
        for section, keys in other._sections.items():
            self._sections.setdefault(section, {}).update(keys)
        self._interpolator.forget()

    def copy(self):
        """A document of its own with the same keys."""
        return Document(self._sections, self._interpolator._environ)

    # ---

    def _typed(self, key, default, convert):
        try:
            text = self._interpolator.resolve(key)
        except MissingKey as error:
            if default is _UNSET or error.key != key:
                raise
            return default
        return convert(key, text)

    def _split(self, key):
        section, _, name = key.rpartition(".")
        return section, name
