"""Memories and logic with gradients: the tables and laws of `hw_models.technology.tables` over any array namespace.

Sizes and supplies may be tensors. A process node is an enumerated choice: it comes as plain numbers and has no gradient, since
between the nodes of a table there is no process, and the carbon of a wafer is known for real nodes only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value
from hw_models.technology.namespace import Namespace, power_law
from hw_models.technology.tables import (
    ADDRESS_READ_PJ,
    ADDRESS_WRITE_PJ,
    Quantity,
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
