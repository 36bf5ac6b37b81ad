import pytest

from gridtext import Table, cell_width
from gridtext.table import Style


@pytest.fixture
def files():
    table = Table(["name", "size"], align="lr")
    table.add_row("main.py", 1204)
    table.add_row("README", 88)
    return table


def test_render(files):
    assert files.render().splitlines() == ["name     size", "-------  ----", "main.py  1204", "README     88"]


def test_style():
    table = Table(["a", "b"], [[1, 2]], style=Style(separator=" | ", rule=""))
    assert table.render() == "a | b\n1 | 2"


def test_values():
    table = Table(["x", "y"], [[None, 0.5]])
    assert table.rows == [["", "0.50"]]


def test_sort(files):
    files.sort("name")
    assert [row[0] for row in files.rows] == ["README", "main.py"]


def test_wrong_number_of_cells(files):
    with pytest.raises(ValueError, match="2 columns but 1 cells"):
        files.add_row("alone")


@pytest.mark.parametrize("align", ["l", "lx", "lrc"])
def test_wrong_alignment(align):
    with pytest.raises(ValueError):
        Table(["a", "b"], align=align)


def test_tables_do_not_share_rows():
    one, two = Table(["a"]), Table(["a"])
    one.add_row(1)
    assert two.rows == []


def test_cells_with_several_lines():
    table = Table(["k", "v"], [["a", "one\ntwo"], ["b", "three"]])
    assert table.render().splitlines()[2:] == ["a  one", "   two", "b  three"]


def test_cells_wrap_to_the_width():
    table = Table(["id", "text"], [[1, "the quick brown fox jumps"]])
    assert table.render(width=15).splitlines() == [
        "id  text",
        "--  -----------",
        "1   the quick",
        "    brown fox",
        "    jumps",
    ]


def test_cells_are_cut_to_the_width():
    table = Table(["id", "text"], [[1, "the quick brown fox jumps"]])
    assert table.render(width=15, wrap_cells=False).splitlines()[2] == "1   the quick …"


def test_wide_cells_are_cut_to_the_width():
    table = Table(["名前", "値"], [["とても長い名前です", "1"], ["short", "2"]])
    lines = table.render(width=12, wrap_cells=False).splitlines()
    assert lines[2:] == ["とても…   1", "short     2"]
    assert all(cell_width(line) <= 12 for line in lines)


@pytest.mark.parametrize("width", [17, 20, 33, 47, 60])
def test_render_is_never_wider_than_asked(width):
    table = Table(["id", "name", "description", "notes"])
    table.add_row(7, "frobnicator", "takes the widget and turns it until it fits", "see also: the manual, page 12")
    assert max(map(cell_width, table.render(width=width).splitlines())) <= width
