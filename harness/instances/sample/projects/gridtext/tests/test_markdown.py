from gridtext import Table, to_markdown


def test_markdown():
    table = Table(["name", "size"], [["main.py", 1204]], align="lr")
    assert to_markdown(table).splitlines() == [
        "| name    | size |",
        "| :------ | ---: |",
        "| main.py | 1204 |",
    ]


def test_centred_column():
    assert to_markdown(Table(["a heading"], align="c")).splitlines()[1] == "| :-------: |"


def test_line_breaks_become_tags():
    assert "one<br>two" in to_markdown(Table(["x"], [["one\ntwo"]]))


def test_colour_codes_are_dropped():
    assert to_markdown(Table(["x"], [["\x1b[31mred\x1b[0m"]])).splitlines()[2] == "| red  |"


def test_bars_are_escaped():
    lines = to_markdown(Table(["expression", "n"], [["a | b", 1], ["c||d", 2]])).splitlines()
    assert lines[2] == r"| a \| b     | 1    |"
    assert lines[3] == r"| c\|\|d     | 2    |"


def test_bars_in_headers_are_escaped():
    assert to_markdown(Table(["a|b"])).splitlines()[0] == r"| a\|b |"
