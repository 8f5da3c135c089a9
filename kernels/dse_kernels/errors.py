"""The exception that all packages of the toolkit raise; it stands in the lowest of them so that each can be told by the same name."""

from __future__ import annotations


class DseError(ValueError):
    """A request that cannot be met; the command line prints it as one line and exits with ``exit_code``. Users say `dse.DseError`."""

    exit_code = 1
