"""`forwarder version`: what is installed, and under which licence."""

import platform

from forwarder import __version__
from forwarder.cli.console import out

LICENCE = "Apache-2.0"


def version() -> None:
    """Print the version, the Python that runs it and the licence."""
    out(f"friction-forwarder {__version__}")
    out(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    out(f"Licence {LICENCE}: https://www.apache.org/licenses/LICENSE-2.0")
