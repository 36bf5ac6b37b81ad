"""Published figures as rows of a table: what a paper printed, marked as reported, with nothing added but arithmetic."""

from importlib.resources import files

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.types import Record


class ReferenceRow(Record):
    """One published figure, in percent; `difference` in points to the first row."""

    arm: str
    resolved: float
    difference: float | None = None


class Reference(Record):
    """A published table: figures, where they stand, and what is not known about them."""

    name: str
    title: str
    source: str
    dataset: str
    tasks: int
    model: str = ""
    rows: tuple[ReferenceRow, ...]
    note: str


def known_references() -> list[str]:
    """Names of the references that are shipped."""
    folder = files("aem_harness.harness.report") / "references"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def reference(name: str) -> Reference:
    """A shipped reference; ConfigError names those there are."""
    import yaml

    if name not in known_references():
        raise ConfigError(f"no reference {name!r}; shipped are: {', '.join(known_references())}")
    text = (files("aem_harness.harness.report") / "references" / f"{name}.yaml").read_text()
    return Reference(**yaml.safe_load(text))
