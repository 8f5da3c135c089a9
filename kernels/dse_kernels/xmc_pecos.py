"""PECOS's XR-Linear folders, read and written: ``ranker/<level>.model/{W.npz, C.npz, param.json}``, as ``XLinearModel.save`` leaves them.

Read with plain numpy and json, never pickle; every array is checked before it is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dse_kernels.xmc_model import Fault, Level, ModelError, Ranker, check_post_processor, check_ranker, column_fault
from dse_kernels.xmc_npz import read_npz


def _ranker_folder(folder: Path) -> Path:
    return folder / "ranker" if (folder / "ranker").is_dir() else folder


def is_pecos_folder(folder: Path) -> bool:
    """Whether the folder, or its ``ranker``, has level 0 of a ranker."""
    return (_ranker_folder(folder) / "0.model").is_dir()


def read_pecos(folder: str | Path, *, mapped: bool = False) -> Ranker:
    """Read a folder that PECOS wrote (the whole model's or its ranker's). Raises ModelError naming file and field.

    With ``mapped``, weights that are stored uncompressed are not read but mapped: arrays that cannot be written to, at any address, for
    ``xmc_layout`` alone (scipy's products want addresses that are multiples of an entry's size).
    """
    root = _ranker_folder(Path(folder))
    settings = _read_json(root / "param.json")
    depth = settings.get("depth")
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= 64:
        raise ModelError(f"{root / 'param.json'}: depth {depth!r} is not an integer in 1..64")
    levels = tuple(_read_level(root / f"{at}.model", at, mapped) for at in range(depth))
    ranker = check_ranker(Ranker(levels), [str(root / f"{at}.model") for at in range(depth)], entries=False)
    for key, held in (("nr_labels", ranker.labels), ("nr_features", ranker.features)):
        if key in settings and settings[key] != held:
            raise ModelError(f"{root / 'param.json'}: {key} is {settings[key]!r}, the matrices have {held}")
    return ranker


def _read_level(folder: Path, depth: int, mapped: bool) -> Level:
    settings = _read_json(folder / "param.json")
    prediction = settings.get("pred_kwargs")
    where = folder / "param.json"
    if not isinstance(prediction, dict):
        raise ModelError(f"{where}: pred_kwargs is missing")
    bias, keep, post = settings.get("bias"), prediction.get("only_topk"), prediction.get("post_processor")
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise ModelError(f"{where}: bias {bias!r} is not a number")
    if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep < 2**31:
        raise ModelError(f"{where}: only_topk {keep!r} is not a positive integer")
    if not isinstance(post, str):
        raise ModelError(f"{where}: post_processor {post!r} is not a name")
    try:
        check_post_processor(post)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    weights = read_csc(folder / "W.npz", mapped=mapped)
    # PECOS leaves the root's C out in some models: all nodes of level 0 are the root's children.
    rootless = depth == 0 and not (folder / "C.npz").exists()
    parents = sparse.csc_matrix(np.ones((weights.shape[1], 1), np.float32)) if rootless else read_csc(folder / "C.npz", sort=False)
    return Level(weights, parents, float(bias), post, keep)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: is missing") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON ({type(error).__name__})") from None
    if not isinstance(loaded, dict):
        raise ModelError(f"{path}: is not a JSON object")
    return loaded


def read_csc(path: Path, *, sort: bool = True, mapped: bool = False) -> sparse.csc_matrix:
    """A sparse matrix as scipy's ``save_npz`` writes it (CSC or CSR, compressed or not), float32, as CSC.

    A CSC matrix keeps the order of its indices (it means something in C); CSR is converted. ``mapped`` as in ``read_pecos``. Raises
    ModelError naming file and field.
    """
    arrays = read_npz(path, ("indices", "indptr", "format", "shape", "data"), mapped=("indices", "data") if mapped else ())
    kind = arrays["format"].item() if arrays["format"].shape == () else None
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    shape = arrays["shape"]
    if kind not in ("csc", "csr"):
        raise ModelError(f"{path}: format {kind!r} is not csc or csr")
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any() or (shape >= 2**31).any():
        raise ModelError(f"{path}: shape {shape.tolist()} is not two sizes below 2^31")
    rows, columns = (int(n) for n in shape)
    indptr, indices, data = arrays["indptr"], arrays["indices"], arrays["data"]
    if any(a.ndim != 1 for a in (indptr, indices, data)) or any(a.dtype.kind not in "iu" for a in (indptr, indices)):
        raise ModelError(f"{path}: indptr and indices are not one-dimensional arrays of integers beside data")
    if data.dtype.kind not in "fiu":
        raise ModelError(f"{path}: data of type {data.dtype} is not real numbers")
    major, minor = (columns, rows) if kind == "csc" else (rows, columns)
    if indptr.size != major + 1 or indptr[0] != 0 or indptr[-1] != indices.size or (indptr[1:] < indptr[:-1]).any():
        along = "columns" if kind == "csc" else "rows"
        raise ModelError(f"{path}: indptr ({indptr.size} entries for {major} {along}) does not rise from 0 to {indices.size}")
    if indices.size != data.size:
        raise ModelError(f"{path}: {indices.size} indices, {data.size} data")
    with np.errstate(over="ignore"):
        values = data.astype(np.float32, copy=False)
    # Integers of another width are looked at before they are made narrow; the kernel looks at the rest.
    outside = indices.dtype != np.int32 and indices.size > 0 and (indices.min() < 0 or indices.max() >= minor)
    ordered = sort and kind == "csc"
    fault, column = (Fault.OUTSIDE, 0) if outside else column_fault(indptr, indices, values, minor, ordered=ordered)
    if fault is Fault.OUTSIDE:
        raise ModelError(f"{path}: indices {indices.min()}..{indices.max()} are not all in 0..{minor - 1}")
    if fault is Fault.NOT_FINITE:
        raise ModelError(f"{path}: data holds a number that is not finite")
    wide = np.int64 if indices.size >= 2**31 else np.int32
    parts = (values, indices.astype(np.int32, copy=False), indptr.astype(wide, copy=False))
    if kind == "csr":
        aligned = (np.require(values, requirements="A"), np.require(parts[1], requirements="A"), parts[2])
        return sparse.csr_matrix(aligned, shape=(rows, columns)).tocsc()
    if fault is Fault.UNSORTED:
        raise ModelError(f"{path}: row indices of column {column} are unsorted or duplicated")
    matrix = sparse.csc_matrix(parts, shape=(rows, columns))
    if sort:
        matrix.has_canonical_format = True  # just seen: scipy does not look again
    return matrix


def write_pecos(ranker: Ranker, folder: str | Path) -> Path:
    """Write the ranker as ``XLinearModel.save`` would, uncompressed (PECOS's loader aborts on a compressed file); returns the folder."""
    root = Path(folder)
    ranker = check_ranker(ranker)
    (root / "ranker").mkdir(parents=True, exist_ok=True)
    _write_json(root / "param.json", {"__meta__": {"class_fullname": "pecos.xmc.xlinear.model###XLinearModel"}})
    above = 1
    for depth, level in enumerate(ranker.levels):
        at = root / "ranker" / f"{depth}.model"
        at.mkdir(exist_ok=True)
        nodes = int(level.parents.shape[0])
        sparse.save_npz(at / "W.npz", level.weights, compressed=False)
        sparse.save_npz(at / "C.npz", level.parents, compressed=False)
        prediction = {
            "__meta__": {"class_fullname": "pecos.xmc.base###MLModel.PredParams"},
            "only_topk": level.only_topk,
            "post_processor": level.post_processor,
        }
        settings = {
            "__meta__": {"class_fullname": "pecos.xmc.base###MLModel"},
            "model": "MLModel",
            "nr_labels": nodes,
            "nr_features": ranker.features,
            "nr_codes": above,
            "bias": level.bias,
            "pred_kwargs": prediction,
        }
        _write_json(at / "param.json", settings)
        above = nodes
    whole = {
        "__meta__": {"class_fullname": "pecos.xmc.base###HierarchicalMLModel"},
        "model": "HierarchicalMLModel",
        "depth": len(ranker.levels),
        "nr_features": ranker.features,
        "nr_codes": int(ranker.levels[-1].parents.shape[1]),
        "nr_labels": ranker.labels,
    }
    _write_json(root / "ranker" / "param.json", whole)
    return root


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
