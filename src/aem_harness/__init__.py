"""aem-harness: find out whether a new checkpoint is a better software engineer than the last.

The one name that the distribution installs. The packages lie at the top of the repository and are linked here.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("aem-harness")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
