"""Errors that point at a place in the formula."""


def line_and_column(text, offset):
    """Line and column, both from 1, of the character at `offset`."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class CalxError(Exception):
    """Base of all errors of this package: what is wrong, and where."""

    def __init__(self, message, text, offset):
        self.message = message
        self.text = text
        self.offset = offset
        self.line, self.column = line_and_column(text, offset)
        super().__init__(f"{message} (line {self.line}, column {self.column})")

    def show(self):
        """The line in question with a caret under the place. Tabs are kept, so that the caret lines up."""
        line = self.text.split("\n")[self.line - 1]
        indent = "".join("\t" if char == "\t" else " " for char in line[: self.column - 1])
        return f"{line}\n{indent}^ {self.message}"


class SyntaxProblem(CalxError):
    """The text is not a formula."""


class EvalError(CalxError):
    """The formula has no value."""
