"""Plain-text and Markdown tables that fit the terminal."""

from .layout import fit_columns
from .markdown import to_markdown
from .table import Table
from .width import cell_width, pad, strip_ansi, truncate
from .wrap import wrap

__all__ = ["Table", "cell_width", "fit_columns", "pad", "strip_ansi", "to_markdown", "truncate", "wrap"]
__version__ = "0.12.0"
