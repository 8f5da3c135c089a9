"""Numbers and lists in sentences, the same wherever a result is told: terminal, report, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def finite(value: Any) -> float | None:
    """``value`` as a float, or None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def number_text(value: Any, factor: float = 1.0) -> str:
    """A number times ``factor`` to four significant digits, in plain notation where that is short."""
    number = finite(value)
    if number is None:
        return "–"
    number *= factor
    if number == 0:
        return "0"
    if 1e-4 <= abs(number) < 1e7:
        decimals = max(0, 3 - math.floor(math.log10(abs(number))))
        text = f"{number:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{number:.3e}"


def error_text(error: float) -> str:
    """A standard error: two digits say what it can say."""
    return number_text(float(f"{error:.2g}"))


def plural(count: int, noun: str) -> str:
    """``1 design``, ``2 designs``, with thousands separated."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, never rounded to 0 or 100 where it is neither."""
    if not whole:
        return "–"
    percent = 100.0 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent not in (0, 100) else f"{percent:.0f} %"


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def lowered(label: str) -> str:
    """A label as it stands inside a sentence: the first letter small, unless it begins a word in capitals."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def whole_percents(shares: Sequence[float]) -> list[int]:
    """Shares of one whole as whole per cents that add to 100: the largest remainders are rounded up."""
    exact = [100.0 * value for value in shares]
    found = [math.floor(value) for value in exact]
    missing = round(sum(exact)) - sum(found)
    for index in sorted(range(len(exact)), key=lambda i: found[i] - exact[i])[:missing]:
        found[index] += 1
    return found


# Knobs that the size of a model stands for, or that are named beside it.
_MOST_NAMED = 3
_OF_MODELS = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "weight_bits")


def design_phrase(knobs: Mapping[str, Any], varying: Sequence[str], named: Sequence[str] = (), sizes: Sequence[str] = ()) -> str:
    """A design in a few words, ``12 layers x 576 on 64 x 32``: the model's size, then the hardware's; what varies where it has neither.

    ``sizes``: knobs of the model, of which those that vary are told by name (``channels 96, blocks 8 on array 32 x 2``) where it has no
    layers and no width of their own.
    ``named``: knobs that are told in any case (``64 x 32 with glb_mib 1``), because somebody asked for their values.
    A fleet is ``at 8 bits a weight on 2 replicas of 4 x h100, at most 64 sequences at a time``.
    """
    size = {"layers", "hidden"}
    model = f"{plural(knobs['layers'], 'layer')} x {knobs['hidden']}" if size <= knobs.keys() and size & set(varying) else ""
    own = [f"{name} {knobs[name]}" for name in varying if name in sizes and name in knobs and name != "weight_bits"] if not model else []
    model = model or ", ".join(own[:_MOST_NAMED])
    if "weight_bits" in varying and "weight_bits" in knobs:
        model = f"{model} at {knobs['weight_bits']} bits a weight".strip()
    if {"hw", "tp", "replicas"} <= knobs.keys():
        together = f", at most {knobs['max_sequences']} sequences at a time" if "max_sequences" in knobs else ""
        return f"{model} on {plural(knobs['replicas'], 'replica')} of {knobs['tp']} x {knobs['hw']}{together}".removeprefix(" on ")
    rows, columns = ("width", "depth") if "width" in knobs else ("array_rows", "array_columns")
    hardware, told = "", set(_OF_MODELS)
    if "device" in knobs:
        hardware = f"{knobs['chips']} x {knobs['device']}" if "chips" in knobs else str(knobs["device"])
        told |= {"device", "chips"}
    elif rows in knobs and columns in knobs:
        cores = knobs.get("cores", 1)
        chips = knobs.get("chips", 1)
        hardware = f"{knobs[rows]} x {knobs[columns]}"
        hardware = f"array {hardware}" if own else hardware
        hardware = f"{cores} cores of {hardware}" if cores != 1 else hardware
        hardware = f"{chips} chips with {hardware}" if chips != 1 else hardware
        told |= {"cores", "chips", rows, columns}
    told |= set(sizes) if own else set()
    further = [f"{name} {knobs[name]}" for name in named if name in knobs and name not in told][:_MOST_NAMED]
    if model and not hardware:  # hardware of the user's own, of which a part varies
        rest = [f"{name} {knobs[name]}" for name in varying if name in knobs and name not in (*_OF_MODELS, *sizes)][:4] or further
        return f"{model} with {', '.join(rest)}" if rest else model
    if model or hardware:
        phrase = f"{model} on {hardware}" if model and hardware else model or hardware
        return f"{phrase} with {', '.join(further)}" if further else phrase
    return ", ".join([f"{name} {knobs[name]}" for name in varying[:6]] or further)


def phrase_beside(
    knobs: Mapping[str, Any], own: Mapping[str, Any], varying: Sequence[str], named: Sequence[str] = (), sizes: Sequence[str] = ()
) -> str:
    """A design in a few words beside another; where these are the other's too, with the knobs that tell them apart."""
    told = design_phrase(knobs, varying, named, sizes)
    if told != design_phrase(own, varying, named, sizes):
        return told
    apart = [f"{name} {value} in place of {own[name]}" for name, value in knobs.items() if name in own and own[name] != value]
    return ", ".join([*([told] if told else []), *apart[:3]])
