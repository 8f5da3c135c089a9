"""Analytical accelerator models: arrays, memory hierarchy, vector units, links, technology; latency, energy and area.

Rooms: `technology`, `accelerator`, `spaces`, `costs`, `twins`, `systolic`, `devices`, `validation`; docs/architecture.md says what each is
for and which may import which.
"""

from __future__ import annotations

import sys

from hw_models.moved import FORWARDING

if FORWARDING not in sys.meta_path:
    sys.meta_path.append(FORWARDING)
