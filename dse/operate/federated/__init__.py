"""Many sites learn one representation and keep a head of their own; no trajectory leaves a site."""

from __future__ import annotations
