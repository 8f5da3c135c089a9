"""How fast a vehicle may go among people, and what that asks of its perception: speed, deadline and frame rate from the context."""

from __future__ import annotations
