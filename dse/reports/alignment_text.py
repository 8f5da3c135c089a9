"""The alignment of a run's costs, as text."""

from __future__ import annotations

from dse.analysis.alignment import RunAlignment
from dse.reports.text import alignment_trust


def text(found: RunAlignment) -> str:
    """What ``dse explain --alignment`` prints."""
    a = found.alignment
    model = ", ".join(f"{name}={value}" for name, value in found.model.items())
    return (
        f"mean cosine of the costs' gradients over the hardware knobs, for the model of design {found.design} ({model}):\n{a}\n"
        f"At 1 one falls wherever the other does; below 0 what lowers one raises the other.\n{alignment_trust(found.to_dict())}"
    )
