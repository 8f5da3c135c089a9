"""Memories and logic with gradients: the tables and laws of `hw_models.technology.tables` over any array namespace.

Sizes and supplies may be tensors. A process node is an enumerated choice: it comes as plain numbers and has no gradient, since
between the nodes of a table there is no process, and the carbon of a wafer is known for real nodes only.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value
from hw_models.technology.namespace import Namespace, power_law
from hw_models.technology.tables import (
    ADDRESS_READ_PJ,
    ADDRESS_WRITE_PJ,
    REFERENCE_NODE_NM,
    REFERENCE_V,
    Quantity,
    _between_nodes,
    _delay_turns,
    _logic_table,
    cacti,
    logic_energy,
    sram_curve,
)

Tensor = Any
FloatArray = npt.NDArray[np.float64]
LARGEST_NODE_NM = 22.0


def sram(xp: Namespace, quantity: Quantity, size_bytes: Tensor, node_nm: FloatArray, access_bytes: int = 4) -> Tensor:
    """As `technology.sram` for sizes above 0 and nodes (numbers) up to 22 nm, where memories are scaled from 22 nm.

    Raises HardwareError for a larger node: between computed nodes the law depends on size and node together.
    """
    node = np.asarray(node_nm, dtype=np.float64)
    if (node > LARGEST_NODE_NM).any():
        raise bad_value("node_nm", float(node.max()), f"at most {LARGEST_NODE_NM:g} nm for a cost with gradients", closest="22")
    held = sram_curve(quantity, int(LARGEST_NODE_NM), access_bytes)
    at_22 = xp.exp(power_law(xp, xp.asarray(held.log_bytes), xp.asarray(held.log_value), xp.log(size_bytes)))
    distinct, inverse = np.unique(node, return_inverse=True)
    scale = np.array([_node_scale(quantity, value, access_bytes) for value in distinct.tolist()])
    value = at_22 * xp.asarray(scale[inverse].reshape(node.shape))
    if quantity in ("read_pj", "write_pj"):
        address = ADDRESS_READ_PJ if quantity == "read_pj" else ADDRESS_WRITE_PJ
        value = value / 2 + xp.asarray(address * logic_energy(node))
    return value


@cache
def _node_scale(quantity: Quantity, node_nm: float, access_bytes: int) -> float:
    """A quantity at a node over that at 22 nm, the same at every size."""
    any_size = float(np.exp(sram_curve(quantity, int(LARGEST_NODE_NM), access_bytes).log_bytes[0]))
    at_node, at_22 = (cacti(quantity, any_size, value, access_bytes) for value in (node_nm, LARGEST_NODE_NM))
    return float(at_node / at_22)


def logic_scale(xp: Namespace, which: Literal["delay", "energy"], node_nm: FloatArray, supply_v: Tensor) -> Tensor:
    """Energy or delay of logic relative to 22 nm and 0.8 V, as `technology.logic_energy` and `logic_delay` have it."""
    node = np.asarray(node_nm, dtype=np.float64)
    reference = _polynomial(xp, which, np.full(1, REFERENCE_NODE_NM), xp.asarray(np.full(1, REFERENCE_V)))
    return _polynomial(xp, which, node, supply_v) / reference


def _polynomial(xp: Namespace, which: str, node: FloatArray, supply: Tensor) -> Tensor:
    """The polynomials of the two table nodes about each node, at its supply, and the power law between them."""
    nodes, _, delay, energy = _logic_table()
    coefficients = delay if which == "delay" else energy
    flat = node.reshape(-1)
    at = np.clip(np.searchsorted(nodes, flat, side="right") - 1, 0, len(nodes) - 2)
    share = np.clip((np.log(flat) - np.log(nodes[at])) / (np.log(nodes[at + 1]) - np.log(nodes[at])), 0.0, 1.0)
    # Beyond the table's smallest node the law is one of the node alone: what a constant quantity would get.
    beyond = _between_nodes(np.ones(len(nodes)), flat, below=0.5 if which == "energy" else 0.0)

    def value(index: npt.NDArray[np.int64]) -> Tensor:
        x = xp.minimum(supply, xp.asarray(_delay_turns()[index].reshape(node.shape))) if which == "delay" else supply
        total: Tensor = 0.0
        for power in coefficients.T:
            total = total * x + xp.asarray(power[index].reshape(node.shape))
        return xp.log(total)

    low, high = value(at), value(at + 1)
    return xp.exp(low + xp.asarray(share.reshape(node.shape)) * (high - low)) * xp.asarray(beyond.reshape(node.shape))
