"""Tables in the terminal: numbers stay whole where a line is too long, and nothing is cut off."""

import io
import re
from collections import Counter

import pytest
from rich.console import Console

from aem_harness.harness.compare.fitted import fit, table_of


def shown(table, width):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().splitlines()


def difference(name, p="< 0.0001"):
    names = ["points", "95 % these", "95 % like", "p these", "p like", "up/down"]
    table = table_of("Difference", "candidate", names)
    table.add_row(name, "+47.4", "[+26.6, +63.0]*", "[+28.0, +66.8]", p, "0.0016", "14/0")
    return table


def whole(lines):
    return all(line.count("[") == line.count("]") for line in lines)


def test_intervals_stay_whole_at_80_columns_and_names_give_way():
    for name in ("careful", "a-checkpoint-of-24-chars"):
        lines = shown(difference(name), 80)
        assert whole(lines)
        assert max(map(len, lines)) <= 80
        assert "".join(re.findall(r"^ ([\w-]+)", "\n".join(lines), re.MULTILINE)).endswith(name)


def test_text_is_broken_between_words_only_after_the_headings():
    table = table_of("Resolved", "arm", ["tasks", "seeds", "lost", "%", "95 % these tasks", "95 % like these"])
    table.add_row("base", "19", "2", "0", "42.1", "[27.9, 57.8]*", "[24.6, 61.9]")
    table.add_row("  tampered: 0 of 2", "", "", "", "42.1", "[27.9, 57.8]*", "[24.6, 61.9]")
    lines = shown(table, 80)
    assert any("tampered: 0 of 2" in line for line in lines)
    assert whole(lines)


@pytest.mark.parametrize("width", [80, 85, 90])
def test_a_p_value_is_broken_rather_than_an_interval_or_a_name(width):
    lines = shown(difference("careful", "0.012 (alone 0.0031)"), width)
    assert whole(lines)
    assert any(line.startswith(" careful ") for line in lines)


@pytest.mark.parametrize("width", [24, 30, 40, 60, 71, 80])
def test_what_fits_nowhere_is_wrapped_and_not_cut(width):
    table = difference("careful")
    wanted = [str(one) for column in table.columns for one in (column.header, *column.cells)]
    lines = shown(table, width)
    assert max(map(len, lines)) <= width
    assert not Counter("".join(wanted).replace(" ", "")) - Counter("".join(lines))


def passes(columns):
    table = table_of("Difference of pass@k", "pair", [f"pass@{k}" for k in range(columns)])
    table.add_row("new - old", *["-5.0 [-17.6, +7.6]"] * columns)
    return table


@pytest.mark.parametrize(("columns", "width"), [(3, 60), (4, 80), (4, 100), (6, 140)])
def test_an_interval_goes_below_its_value_rather_than_over_two_lines(columns, width):
    lines = shown(passes(columns), width)
    assert whole(lines)
    assert "".join(lines).count("[-17.6, +7.6]") == columns


@pytest.mark.parametrize("columns", [6, 8])
def test_where_intervals_must_be_broken_their_ends_are_not(columns):
    lines = shown(passes(columns), 80)
    assert max(map(len, lines)) <= 80
    assert [sum(line.count(part) for line in lines) for part in ("-5.0", "[-17.6,", "+7.6]")] == [columns] * 3


def test_words_in_brackets_are_part_of_a_name_in_titles_and_headings():
    table = table_of("Points from GPT-5 [low]", "arm [/x]", ["GPT-5 [high]"])
    table.add_row("a", "1")
    text = "\n".join(shown(table, 80))
    assert all(name in text for name in ("GPT-5 [low]", "arm [/x]", "GPT-5 [high]"))


@pytest.mark.parametrize("room", range(10, 60))
def test_widths_keep_to_the_room(room):
    columns = [["metric", "wall time per resolved, s"], ["difference", "+3.25"], ["p", "0.1 (alone 0.012)"]]
    found = fit(columns, room)
    widths = found and found.widths
    assert widths is None or (sum(widths) <= room and widths[1] >= len("+3.25"))
    assert (widths is None) == (room < 9 + 10 + 6)
