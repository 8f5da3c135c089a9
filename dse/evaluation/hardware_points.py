"""Hardware points as columns: what each design is, where it is made and used, and the carbon of making it.

A point is a hardware design in a deployment. Usually there is one deployment and the two are the same; where a search
varies the deployment too (grid, fab grid, package, lifetime), each distinct design is costed once and stands at several
points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import carbon
import carbon.analysis.robustness
import carbon.device.profiles
import carbon.factors.grid
from dse.errors import UsageError
from dse.evaluation.boards import board_inputs
from dse.problem.deployment import Deployment
from dse.spaces.hardware import HardwareSpace
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs import evaluate as cost
from hw_models.costs.unit_costs import Criterion, UnitCosts, bounds_among
from hw_models.devices import library
from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Points:
    """Columns over the points (points,), and the distinct designs behind them.

    Attributes:
        design: index of the hardware design of each point; batches: the distinct designs, in order, in groups of one DRAM type.
        chips: all chips of the design at each point; a chip with its memory is a device to the carbon model.
        in_flight: requests that the design of each point works on at a time (pipelines, replicas); request_leakage_w: idle power of a
            request's share of its chips.
        area_mm2, tops, leakage_w, dram_bytes: of all chips; dram_bytes_per_s: of one.
        rate_per_s, lifetime_years, pue, gco2e_per_kwh: of the deployment at each point.
        groups: what the carbon model is told, a group of points a call: their indices, inputs, and the grid of use.
        embodied_kgco2e, parts: carbon of making the device, whole and by part; makeable: whether it can be made at all.
        capital_usd: price of the boards of the point, not a number where none is public.
        sources: every carbon factor that was used, as plain values.
    """

    design: IntArray
    batches: tuple[AcceleratorBatch, ...]
    chips: IntArray
    in_flight: FloatArray
    request_leakage_w: FloatArray
    area_mm2: FloatArray
    tops: FloatArray
    leakage_w: FloatArray
    dram_bytes: FloatArray
    dram_bytes_per_s: FloatArray
    rate_per_s: FloatArray
    lifetime_years: FloatArray
    pue: float
    gco2e_per_kwh: FloatArray
    embodied_kgco2e: FloatArray
    parts: dict[str, FloatArray]
    groups: list[carbon.analysis.robustness.Group]
    makeable: npt.NDArray[np.bool_]
    capital_usd: FloatArray
    sources: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.design)

    @property
    def one_deployment(self) -> bool:
        """Whether every point is a design of its own, in the designs' order."""
        return len(self.design) == sum(map(len, self.batches)) and bool((np.diff(self.design) == 1).all())

    @property
    def one_chip(self) -> bool:
        """Whether every design is a single chip."""
        return all(batch.one_chip for batch in self.batches)

    @property
    def one_group(self) -> bool:
        """Whether no design has stages or replicas: one request at a time, all chips at every operation."""
        return all(bool((batch.all_chips == batch.chips).all()) and bool((batch.in_flight == 1).all()) for batch in self.batches)

    def of_designs(self, function: Callable[[AcceleratorBatch], FloatArray]) -> FloatArray:
        """A function of batches, (..., designs of the batch), over the distinct designs of all."""
        return np.concatenate([function(batch) for batch in self.batches], axis=-1)

    def of_designs_columns(self, columns: FloatArray, function: Callable[[AcceleratorBatch, FloatArray], FloatArray]) -> FloatArray:
        """A function of batches and of the columns (models, designs) of theirs."""
        ends = np.cumsum([len(batch) for batch in self.batches])
        parts = [function(batch, columns[:, end - len(batch) : end]) for batch, end in zip(self.batches, ends, strict=True)]
        return np.concatenate(parts, axis=1)

    def unit_costs(
        self,
        shapes: OperationTable,
        *,
        criterion: Criterion,
        threads: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> UnitCosts:
        """Unit costs of shapes on the distinct designs, (shapes, designs)."""
        parts = [
            cost.unit_costs(shapes, batch, criterion=criterion, threads=threads, progress=progress, unmapped="infinite")
            for batch in self.batches
        ]
        if len(parts) == 1:
            return parts[0]
        arrays = [f.name for f in fields(parts[0]) if isinstance(getattr(parts[0], f.name), np.ndarray)]
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in arrays}
        names = tuple(dict.fromkeys(name for part in parts for name in part.bound_names))
        columns["bound"] = np.concatenate([bounds_among(part, names) for part in parts], axis=1)
        return replace(parts[0], **columns, bound_names=names)

    def unit_costs_of(self, design: int, shapes: OperationTable, criterion: Criterion) -> UnitCosts:
        """Unit costs of shapes on one of the distinct designs, (shapes, 1)."""
        for batch in self.batches:
            if design < len(batch):
                one = batch.take(np.array([design]))
                return cost.unit_costs(shapes, one, criterion=criterion, threads=1, unmapped="infinite")
            design -= len(batch)
        raise IndexError(design)


def split_knobs(hardware: HardwareSpace, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that describe the hardware, and those that describe its deployment."""
    own = {name: column for name, column in columns.items() if name in hardware.knobs}
    return own, {name: column for name, column in columns.items() if name not in own}


def make_points(
    hardware: HardwareSpace, columns: Mapping[str, npt.NDArray[Any]], deployment: Deployment, *, count: int | None = None
) -> Points:
    """The points of knob columns (points,); no columns at all are ``count`` equal points, by default one."""
    count = len(next(iter(columns.values()), (0,))) if columns or count is None else count
    own, elsewhere = split_knobs(hardware, columns)
    batches, design = _designs(hardware, own, count)

    def of_designs(name: str) -> npt.NDArray[Any]:
        values = [np.broadcast_to(np.asarray(getattr(batch, name)), (len(batch),)) for batch in batches]
        return np.concatenate(values)[design]

    def of_deployment(name: str) -> npt.NDArray[Any]:
        return np.asarray(elsewhere.get(name, np.full(count, getattr(deployment, name))))

    memory_type = np.concatenate([np.full(len(batch), batch.level_kinds[-1]) for batch in batches])[design]
    names = {"memory_type": memory_type, "fab_grid": of_deployment("fab_grid"), "package": of_deployment("package")}
    chips = of_designs("all_chips")
    numbers = {
        "area_mm2": of_designs("die_mm2"),
        "node_nm": of_designs("node_nm"),
        "memory_gb": of_designs("dram_bytes") / chips / 2**30,
    }
    board = np.concatenate([np.array(batch.names or ("",) * len(batch), dtype=str) for batch in batches])[design]
    boards = hardware.shipped or ((hardware.board,) if hardware.board else ())
    if hardware.board:
        board = np.full(count, hardware.board)
    known = carbon.device.profiles.get(deployment.carbon_profile).blocks and np.isin(board, boards)
    names["board"] = np.where(known, board, "")
    names["bottom_up_area"] = np.where(of_designs("bottom_up_area"), "yes", "")
    groups = _groups(deployment, {**names, "grid": of_deployment("grid")}, numbers, chips)
    embodied, parts, makeable, sources = _embodied(deployment, groups, len(design), hardware.name)
    makeable &= np.concatenate([_nested(batch) for batch in batches])[design]
    intensity = np.empty(len(design))
    for group in groups:
        intensity[group.members] = group.use_grid.gco2e_per_kwh
    return Points(
        design=design,
        batches=tuple(batches),
        chips=chips,
        in_flight=of_designs("in_flight").astype(np.float64),
        request_leakage_w=of_designs("leakage_w") / of_designs("in_flight"),
        area_mm2=of_designs("area_mm2"),
        tops=of_designs("tops"),
        leakage_w=of_designs("leakage_w"),
        dram_bytes=of_designs("dram_bytes").astype(np.float64),
        dram_bytes_per_s=of_designs("dram_bytes_per_s"),
        rate_per_s=of_deployment("rate_per_s").astype(np.float64),
        lifetime_years=of_deployment("lifetime_years").astype(np.float64),
        pue=deployment.pue,
        gco2e_per_kwh=intensity,
        embodied_kgco2e=embodied,
        parts=parts,
        groups=groups,
        makeable=makeable,
        capital_usd=_capital_usd(board, boards) * chips,
        sources=sources,
    )


def _nested(batch: AcceleratorBatch) -> npt.NDArray[np.bool_]:
    """Designs (count,) whose memories grow outwards, as the record of a single one must: a grid of two memories has others too."""
    return np.asarray((np.diff(np.asarray(batch.level_bytes), axis=1) >= 0).all(axis=1))


def _designs(hardware: HardwareSpace, own: Mapping[str, Any], count: int) -> tuple[list[AcceleratorBatch], IntArray]:
    """Batches of the distinct designs, and the index of each point's design among them."""
    if not own:
        return [hardware.batch({})], np.zeros(count, dtype=np.int64)
    codes = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in own.values()]
    _, first, inverse = np.unique(np.column_stack(codes), axis=0, return_index=True, return_inverse=True)
    # First appearance decides the order, so that a plain grid keeps its own.
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    distinct = {name: column[first[order]] for name, column in own.items()}
    design = rank[inverse.reshape(-1)]
    batches, place, offset = [], np.empty(len(order), dtype=np.int64), 0
    for members in hardware.alike(distinct, len(order)):
        batches.append(hardware.batch({name: column[members] for name, column in distinct.items()}))
        place[members] = offset + np.arange(len(members))
        offset += len(members)
    return batches, place[design]


def _groups(
    deployment: Deployment, names: Mapping[str, npt.NDArray[Any]], numbers: Mapping[str, FloatArray], chips: IntArray
) -> list[carbon.analysis.robustness.Group]:
    """Points that share the named inputs of the carbon model: one call each."""
    # Some profiles fix the carbon of a wafer themselves and refuse a grid of the fab.
    recipe = carbon.device.profiles.get(deployment.carbon_profile)
    chooses_grid = recipe.fab_grid is not None
    keys = np.column_stack([np.asarray(column, dtype=str) for column in names.values()])
    found = []
    for key in np.unique(keys, axis=0):
        here = np.flatnonzero((keys == key).all(axis=1))
        chosen = {name: str(value) for name, value in zip(names, key, strict=True) if value}
        grid = carbon.factors.grid.lookup(chosen.pop("grid"))
        if not chooses_grid:
            chosen.pop("fab_grid", None)
        if recipe.memory_type is not None:  # that tool has one memory, whatever the hardware has
            del chosen["memory_type"]
        bottom_up = bool(chosen.pop("bottom_up_area", ""))
        board = chosen.pop("board", "")
        devices: dict[str, Any] = {name: column[here] for name, column in numbers.items()} | chosen
        if board:
            devices |= _board_inputs(board, devices)
        elif bottom_up:
            devices["bottom_up_area"] = True
        found.append(carbon.analysis.robustness.Group(here, devices, grid, chips[here]))
    return found


def _capital_usd(boards: npt.NDArray[np.str_], shipped: Sequence[str]) -> FloatArray:
    """Price of one board of each point (points,), not a number for designs that nobody sells."""
    price = {name: library.load(name).capital_usd for name in shipped}
    return np.array([np.nan if price.get(str(name)) is None else price[str(name)] for name in boards], dtype=np.float64)


def _board_inputs(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the carbon model is told of a board of the library instead of a bare design."""
    said = board_inputs(name)
    if given.get("package"):
        said.pop("package", None)  # the deployment names another
    return {**said, "area_mm2": np.full_like(given["area_mm2"], said["area_mm2"])}


def _embodied(
    deployment: Deployment, groups: Sequence[carbon.analysis.robustness.Group], count: int, label: str
) -> tuple[FloatArray, dict[str, FloatArray], npt.NDArray[np.bool_], list[dict[str, Any]]]:
    """Embodied carbon (points,), by part, whether the device can be made, and every factor with the grids of use."""
    total, makeable = np.zeros(count), np.ones(count, dtype=bool)
    parts: dict[str, FloatArray] = {}
    sources: dict[str, dict[str, Any]] = {}
    for group in groups:
        here = group.members
        try:
            found = carbon.device.profiles.device_embodied(deployment.carbon_profile, **group.devices)
        except carbon.CarbonError as error:
            # Peers' profiles know few memories; the way out is another profile, so the error says so.
            if deployment.carbon_profile == "default" or not str(error).startswith("memory_type"):
                raise
            raise UsageError(
                f"carbon profile {deployment.carbon_profile} cannot cost {label}: {error}; --carbon-profile default knows more memories"
            ) from error
        total[here] = found.embodied_kgco2e * group.count
        makeable[here] = found.feasible
        for name, part in found.parts.items():
            parts.setdefault(name, np.zeros(count))[here] = part * group.count
        for factor in (*found.sources, group.use_grid):
            entry = asdict(factor)
            sources[repr(entry)] = entry
    return total, parts, makeable, list(sources.values())
