from datetime import timedelta

import pytest

from spans import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT0S", timedelta()),
        ("PT1H30M", timedelta(minutes=90)),
        ("P1DT2H", timedelta(days=1, hours=2)),
        ("P2W", timedelta(weeks=2)),
        ("PT0.25S", timedelta(milliseconds=250)),
        ("PT1,5S", timedelta(seconds=1.5)),
        ("-PT15M", -timedelta(minutes=15)),
    ],
)
def test_parse(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "P1Y", "P1M", "PT1H30", "P1DT"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="not an ISO 8601 duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "PT0S"),
        (timedelta(minutes=90), "PT1H30M"),
        (timedelta(days=1), "P1D"),
        (timedelta(days=1, seconds=1), "P1DT1S"),
        (timedelta(milliseconds=250), "PT0.25S"),
    ],
)
def test_format(duration, text):
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (-timedelta(hours=1), "-PT1H"),
        (-timedelta(days=2), "-P2D"),
        (-timedelta(days=1, minutes=5), "-P1DT5M"),
        (-timedelta(milliseconds=500), "-PT0.5S"),
    ],
)
def test_format_negative(duration, text):
    assert format_duration(duration) == text


@pytest.mark.parametrize("seconds", [1, 61, 3600, 86_399, 90_061])
def test_round_trip_of_negative_durations(seconds):
    duration = -timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration
