"""What could not be read of a source: counted by kind, the first of each kind named, in one line."""

from collections.abc import Sequence


class Problems:
    """Records without a usable verdict. `add` one at a time; `lines` says it once, however many there are."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Something that the reader has to know of the source as a whole."""
        self._notes.append(text)

    def add(self, kind: str, record: str) -> None:
        """`kind` completes "records that ...", for example "are not JSON"; `record` names where."""
        self._found.setdefault(kind, []).append(record)

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def lines(self, source: str) -> list[str]:
        """One line about all records, where there are any, and the notes."""
        if not self._found:
            return self._notes
        kinds = [f"{len(where)} {kind} ({_first(where)})" for kind, where in self._found.items()]
        many = len(self)
        return [f"{source}: {many} record{'s' * (many > 1)} without a usable verdict: {'; '.join(kinds)}", *self._notes]


def _first(where: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(one[:120] for one in where[:most])
    return shown + (f", {len(where) - most} more" if len(where) > most else "")
