"""What an engine serves: the products, mixtures and attention of one step of a decoder, read from its operation tables."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from dse.errors import DseError
from workloads import load
from workloads.family import Family
from workloads.ops import ATTENTION, Kind, Operation, OperationTable, Parallel

# An attention row that has no cache of its own length would not be found at a context of one block.
_PROBE_CONTEXT = 4096


@dataclass(frozen=True)
class Product:
    """``copies`` products a step of T tokens: groups x (T x k) (k x n), weights shared by the tokens.

    ``split``: dealt over the chips of a tensor-parallel group; else every chip does it whole. ``head``: one row a sequence.
    """

    n: int
    k: int
    groups: int
    copies: int
    split: bool
    head: bool

    @property
    def parameters(self) -> int:
        """Weights of all copies."""
        return self.n * self.k * self.groups * self.copies


@dataclass(frozen=True)
class Mixture:
    """``layers`` mixtures of gated experts (three products each)."""

    experts: int
    top_k: int
    hidden: int
    ffn: int
    layers: int

    @property
    def parameters(self) -> int:
        """Weights of all experts of all layers."""
        return 3 * self.hidden * self.ffn * self.experts * self.layers


@dataclass(frozen=True)
class Attention:
    """``layers`` layers with the same attention; sizes of a head, decode and prefill (they differ for latent attention).

    ``cache_elements``: elements that a token adds to the cache of one layer. ``latent``: one set for all heads, held whole by
    every chip. ``window``: keys that are seen (0: all).
    """

    layers: int
    heads: int
    cache_elements: int
    decode_width: int
    prefill_width: int
    window: int
    latent: bool
    kv_heads: int


@dataclass(frozen=True)
class ServedModel:
    """A decoder as an engine sees it."""

    name: str
    layers: int
    hidden: int
    positions: int
    vocabulary: int
    products: tuple[Product, ...]
    mixture: Mixture | None
    attention: tuple[Attention, ...]

    @property
    def dense_parameters(self) -> int:
        """Weights of the products outside mixtures, the head and the embedding left out."""
        return sum(p.parameters for p in self.products if not p.head)

    @property
    def head_parameters(self) -> int:
        """Weights of the head."""
        return sum(p.parameters for p in self.products if p.head)

    @property
    def expert_parameters(self) -> int:
        """Weights of the experts (0 without)."""
        return self.mixture.parameters if self.mixture else 0


@functools.lru_cache(maxsize=64)
def served_model(name: str) -> ServedModel:
    """Return the decoder called ``name`` (or a file, see `workloads.load`); DseError if it does not decode with a cache."""
    family = load(name)
    dims = family.dimensions
    if "kv_heads" not in family.builder.knobs and "kv_heads" not in dims:
        raise DseError(f"workload is {name!r}, must be a decoder to be served; nearest is 'llama3-8b'")
    decode = _table(family, "decode")
    prefill = _table(family, "prefill")
    if any(int(kind) in (int(Kind.SCAN),) for kind in decode.kind):
        raise DseError(f"workload is {name!r}, must be a decoder with attention alone (it has a recurrent state); nearest is 'llama3-8b'")
    products = tuple(_product(o) for o in decode.rows() if o.kind == Kind.GEMM and o.second_is_weight and not _expert(o))
    rows = [[o for o in table.rows() if o.kind in ATTENTION] for table in (decode, prefill)]
    if not rows[0] or len(rows[0]) != len(rows[1]):
        raise DseError(f"workload is {name!r}, must be a decoder to be served; nearest is 'llama3-8b'")
    attention = tuple(_attention(d, p) for d, p in zip(*rows, strict=True))
    layers = sum(a.layers for a in attention)
    hidden = max(int(o.k) for o in decode.rows() if o.name == "lm_head")
    mixture = _mixture(family, decode)
    vocabulary = max(int(o.n) for o in decode.rows() if o.name == "lm_head")
    positions = int(dims.get("positions", 0)) or 2**31
    return ServedModel(name, layers, hidden, positions, vocabulary, products, mixture, attention)


def _table(family: Family, phase: str) -> OperationTable:
    # The products do not depend on the context; a model that knows fewer positions is asked for what it knows.
    context = min(_PROBE_CONTEXT, int(family.dimensions.get("positions", 0)) or _PROBE_CONTEXT)
    settings = {"context": context} if phase == "decode" else {"sequence": context}
    return family.build(batch=1, phase=phase, fused_attention=True, **settings).phases[0].table


def _expert(o: Operation) -> bool:
    return o.name.startswith("expert_")


def _product(o: Operation) -> Product:
    head = o.component == "head"
    # The head is dealt by vocabulary; small gathered products (routers, latent projections) are done whole by every chip.
    split = head or o.parallel not in (Parallel.GATHERED, Parallel.REPLICATED)
    return Product(int(o.n), int(o.k), int(o.groups), int(o.repeat), split, head)


def _mixture(family: Family, decode: OperationTable) -> Mixture | None:
    ups = [o for o in decode.rows() if o.name.startswith("expert_up")]
    if not ups:
        return None
    experts = int(family.dimensions["experts"])
    return Mixture(experts, int(family.dimensions["top_k"]), int(ups[0].k), int(ups[0].n), int(ups[0].copies) // experts)


def _attention(decode: Operation, prefill: Operation) -> Attention:
    heads, share = int(decode.batch * decode.m), int(decode.kv_share)
    # A decode row may fold the query heads of a KV head into m (one query each) or list them in batch.
    kv_heads = max(int(decode.batch) // share, 1)
    stored = int(decode.k) + (0 if decode.values_in_keys else int(decode.v_dim))
    return Attention(
        layers=int(decode.repeat),
        heads=heads,
        cache_elements=kv_heads * stored,
        decode_width=int(decode.k) + int(decode.v_dim),
        prefill_width=int(prefill.k) + int(prefill.v_dim),
        window=int(prefill.window),
        latent=bool(decode.values_in_keys),
        kv_heads=kv_heads,
    )
