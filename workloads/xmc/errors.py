"""What is wrong with a tree's data or folder, in one sentence."""

from __future__ import annotations

from workloads.errors import WorkloadError


class XmcError(WorkloadError):
    """A data set, a model folder or a setting that cannot be used; the message names file and field."""
