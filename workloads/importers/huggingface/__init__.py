"""``config.json`` of Hugging Face models: built on the meta device by transformers, exported, walked. Nothing is downloaded."""

from __future__ import annotations

from workloads.importers.huggingface.config import read_config
from workloads.importers.huggingface.family import family_from_config
from workloads.importers.huggingface.phases import import_config

__all__ = ["family_from_config", "import_config", "read_config"]
