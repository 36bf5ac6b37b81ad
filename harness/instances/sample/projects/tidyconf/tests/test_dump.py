import pytest

from tidyconf import dumps, loads


def test_round_trip_keeps_sections_and_references():
    text = "a = 1\n\n[s]\nb = ${a}\nc = two words\n"
    assert dumps(loads(text)) == text


@pytest.mark.parametrize(
    "value",
    ["", " padded ", "line\nbreak", "with # hash", "with ; semicolon", '"quoted"', "back\\slash", "tab\there"],
    ids=["empty", "padded", "newline", "hash", "semicolon", "quoted", "backslash", "tab"],
)
def test_awkward_values_survive(value):
    document = loads("")
    document.set("s.key", value)
    assert loads(dumps(document)).raw("s.key") == value
