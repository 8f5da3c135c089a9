"""A tokenizer for a cut vocabulary: ``tokenizer.json`` without the tokens that went, its identifiers those of the smaller table.

A text that used a token that went is then written with smaller ones (WordPiece and byte-pair encoding build words of pieces), down to
single characters, which always stay. So the tokenizer that a pruned model is saved with is the one that it was measured with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dse.errors import UsageError

Record = Mapping[str, Any]
KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
_UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|<extra_id_\d+>|<\|reserved_special_token_\d+\|>")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SPACE = "▁"  # how sentence pieces write a space


def texts_of(record: Record) -> dict[int, str]:
    """Identifier -> text of every token of a ``tokenizer.json``; a kind of model that is not known is an error."""
    model = record["model"]
    kind = model.get("type") or ("Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else "WordPiece")
    if kind not in KINDS:
        raise UsageError(f"tokenizer.json holds a model of type {kind!r}; a vocabulary can be cut of {', '.join(KINDS)}")
    vocabulary = model["vocab"]
    pairs = enumerate(text for text, _ in vocabulary) if isinstance(vocabulary, list) else ((i, text) for text, i in vocabulary.items())
    return {int(i): text for i, text in pairs} | {int(t["id"]): t["content"] for t in record.get("added_tokens", ())}


def must_stay(record: Record) -> tuple[int, ...]:
    """Tokens without which some text has none: added ones, the unknown one, single characters and bytes."""
    model, texts = record["model"], texts_of(record)
    prefix = model.get("continuing_subword_prefix") or ""
    unknown = model.get("unk_id") if isinstance(model.get("vocab"), list) else None
    found = {int(t["id"]) for t in record.get("added_tokens", ())} | ({int(unknown)} if unknown is not None else set())
    for i, text in texts.items():
        short = text.removeprefix(prefix) if prefix and len(text) > len(prefix) else text
        short = short.removeprefix(_SPACE) if len(short) > 1 else short
        if text == model.get("unk_token") or len(short) == 1 or _BYTE.fullmatch(text):
            found.add(i)
    return tuple(sorted(found))


def unused(record: Record) -> tuple[int, ...]:
    """Tokens that no text has: places that a vocabulary keeps free. They are the first to go."""
    return tuple(sorted(i for i, text in texts_of(record).items() if _UNUSED.fullmatch(text)))


def cut(record: Record, kept: Sequence[int]) -> dict[str, Any]:
    """The ``tokenizer.json`` with the tokens of ``kept`` alone, numbered in that order; all of :func:`must_stay` must be among them."""
    found: dict[str, Any] = json.loads(json.dumps(record))
    place = {int(old): new for new, old in enumerate(kept)}
    lost = [i for i in must_stay(record) if i not in place]
    if lost:
        raise UsageError(f"token {texts_of(record)[lost[0]]!r} must stay in a vocabulary, and is not among the {len(place)} that are kept")
    model = found["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [model["vocab"][i] for i in kept if i < len(model["vocab"])]
        if model.get("unk_id") is not None:
            model["unk_id"] = place[model["unk_id"]]
    else:
        model["vocab"] = {text: place[i] for text, i in sorted(model["vocab"].items(), key=lambda pair: pair[1]) if i in place}
    if model.get("merges"):
        model["merges"] = [m for m in model["merges"] if _makes(m, model)]
    for token in found.get("added_tokens", ()):
        token["id"] = place[token["id"]]
    _renumber(found.get("post_processor"), place)
    if found.get("padding"):
        found["padding"]["pad_id"] = place.get(found["padding"].get("pad_id"), 0)
    return found


def _makes(merge: Any, model: Record) -> bool:
    """Whether both parts of a merge and what it makes are still there."""
    left, _, right = merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
    joined = left + right.removeprefix(model.get("continuing_subword_prefix") or "")
    return all(part in model["vocab"] for part in (left, right, joined))


def _renumber(processor: Any, place: Mapping[int, int]) -> None:
    """New identifiers in a post-processor: templates, pairs like ["[CLS]", 101], and sequences of these."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, place)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [place[i] for i in token["ids"]]
    for name in ("cls", "sep"):
        if isinstance(processor.get(name), list):
            processor[name][1] = place[processor[name][1]]
