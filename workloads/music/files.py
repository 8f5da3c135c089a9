"""A trained decoder as a folder: ``model.json`` (sizes, grouping, tokens), ``merges.json`` where its tokens are merged, and
``model.safetensors`` (weights); data, never code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workloads.errors import WorkloadError, shorten
from workloads.music.groupings import grouping
from workloads.music.model import DecoderOptions, MusicDecoder
from workloads.music.tokens import TokenOptions, Tokens
from workloads.music.training import make_model

FORMAT = "dse-music-1"


def save(folder: Path, model: MusicDecoder, tokens: Tokens, record: dict[str, Any]) -> None:
    """Write the folder; ``record`` is kept beside the sizes (corpus, steps, likelihood)."""
    folder.mkdir(parents=True, exist_ok=True)
    options = model.options
    described = {
        **{"format": FORMAT, "grouping": options.grouping.name, "layers": options.layers, "width": options.width, "ffn": options.ffn},
        **{"tokeniser": tokens.options.tokeniser, "programs": list(tokens.options.programs), "record": record},
        "bpe_vocabulary": tokens.options.bpe_vocabulary,
    }
    if tokens.options.bpe_vocabulary:
        tokens.save(folder / "merges.json")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def load(folder: Path) -> tuple[MusicDecoder, Tokens]:
    """The decoder and its tokens; WorkloadError, in one sentence, where the folder does not hold one."""
    try:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if described.get("format") != FORMAT:
            raise WorkloadError(f"{folder}/model.json has format {shorten(described.get('format'))!r}, must be {FORMAT!r}")
        merged = int(described.get("bpe_vocabulary", 0))
        tokens = Tokens(
            TokenOptions(described["tokeniser"], tuple(int(p) for p in described["programs"]), bpe_vocabulary=merged),
            merges=folder / "merges.json" if merged else None,
        )
        sizes = [int(described[name]) for name in ("layers", "width", "ffn")]
        if not all(1 <= size <= 2**16 for size in sizes):
            raise WorkloadError(f"{folder}/model.json has sizes {sizes}, must be from 1 to {2**16}")
        chosen = grouping(described["grouping"], ("instrument",) if tokens.options.programs else ())
        model = make_model(tokens, DecoderOptions(tokens.vocabularies, chosen, *sizes), 0)
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except OSError as error:
        raise WorkloadError(f"model folder {str(folder)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, WorkloadError):
            raise
        raise WorkloadError(f"model folder {str(folder)!r} holds no music decoder: {shorten(str(error))}") from error
    return model, tokens
