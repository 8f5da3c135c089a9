"""Operating what was designed: when, where and how fast it runs."""

from __future__ import annotations
