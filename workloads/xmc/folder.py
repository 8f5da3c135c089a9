"""The folder of a trained tree: PECOS's ranker, the mapped tree, vectoriser, label names, and what produced them; all plain data.

model.json  vectorizer.json  labels.json  tree.xmc  ranker/<level>.model/{W.npz, C.npz, param.json}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dse_kernels import xmc
from scipy import sparse

from workloads.xmc import data, quality, text, training
from workloads.xmc.errors import XmcError


@dataclass(frozen=True)
class Model:
    """An opened folder: the tree, and where it was trained here its vectoriser, label names and record."""

    path: Path
    tree: xmc.Tree
    vectorizer: text.Vectorizer | None
    names: tuple[str, ...] | None
    record: dict[str, Any]

    def features_of(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Features of texts. Raises XmcError where the folder has no vectoriser."""
        if self.vectorizer is None:
            raise XmcError(f"{self.path}: has no vectorizer.json, so that it answers feature vectors (npz), not text")
        return self.vectorizer.transform(texts)

    def name_of(self, label: int) -> str | int:
        """A label's name, or its number where the folder has no names."""
        return self.names[label] if self.names is not None else label


def open_model(folder: str | Path) -> Model:
    """Open a folder that ``train`` or PECOS wrote, or a ``.xmc`` file. Raises XmcError naming file and field."""
    path = Path(folder)
    try:
        tree = xmc.load(path)
    except (xmc.ModelError, FileNotFoundError) as error:
        raise XmcError(str(error)) from None
    vectorizer = text.Vectorizer.load(path / "vectorizer.json") if (path / "vectorizer.json").is_file() else None
    if vectorizer is not None and vectorizer.features != tree.features:
        raise XmcError(f"{path / 'vectorizer.json'}: {vectorizer.features} terms, the tree has {tree.features} features")
    names = None
    if (path / "labels.json").is_file():
        held = _read_json(path / "labels.json", list)
        if len(held) != tree.labels or not all(isinstance(name, str) for name in held):
            raise XmcError(f"{path / 'labels.json'}: {len(held)} entries, the tree has {tree.labels} labels; each is a string")
        names = tuple(held)
    record = _read_json(path / "model.json", dict) if (path / "model.json").is_file() else {}
    return Model(path, tree, vectorizer, names, record)


def read_ranker(folder: str | Path) -> xmc.Ranker:
    """The matrices of a folder. Raises XmcError naming file and field."""
    try:
        return xmc.read_pecos(folder)
    except xmc.ModelError as error:
        raise XmcError(str(error)) from None


def _read_json(path: Path, kind: type) -> Any:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise XmcError(f"{path}: is not JSON ({type(error).__name__})") from None
    if not isinstance(held, kind):
        raise XmcError(f"{path}: is not a JSON {'array' if kind is list else 'object'}")
    return held


def train_folder(
    documents: data.Documents,
    test: data.Documents | None,
    out: Path,
    text_settings: text.TextSettings,
    settings: training.TrainSettings,
    weights: str,
    command: Sequence[str],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train and write the folder ``out``, which appears whole; returns its record. Interrupted, ``<out>.part`` keeps the finished
    levels and the same command goes on from there. Raises XmcError where ``out`` exists."""
    if out.exists():
        raise XmcError(f"{out}: exists already; name another folder or remove it")
    if weights not in ("float32", "float16", "int8"):
        raise XmcError(f"weights {weights!r} is not one of float32, float16, int8")
    part = out.with_name(out.name + ".part")
    vectorizer = text.fit(documents.texts, text_settings) if documents.texts is not None else None
    X = _features(documents, vectorizer)
    tell(f"{X.shape[0]:,} documents, {X.shape[1]:,} features, {documents.labels.shape[1]:,} labels")
    ranker = training.train(X, documents.labels, settings, part / "checkpoint", tell)
    xmc.write_pecos(ranker, part)
    xmc.save(ranker, part, weights)
    if vectorizer is not None:
        vectorizer.save(part / "vectorizer.json")
    (part / "labels.json").write_text(json.dumps(documents.names), encoding="utf-8")
    record: dict[str, Any] = {
        "command": list(command),
        "data_sha256": documents.digest,
        "documents": X.shape[0],
        "features": X.shape[1],
        "labels": documents.labels.shape[1],
        "text": asdict(text_settings) if vectorizer is not None else None,
        "training": asdict(settings),
        "weights": weights,
        "versions": {name: _version(name) for name in ("dse-toolkit", "numpy", "scipy", "scikit-learn")},
    }
    if test is not None:
        queries = _features(test, vectorizer)
        found, _ = xmc.load(part).predict(queries)
        record["test"] = {"documents": test.count, **quality.measures(found, test.labels)}
    (part / "model.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(part / "checkpoint")
    part.rename(out)
    return record


def _features(documents: data.Documents, vectorizer: text.Vectorizer | None) -> sparse.csr_matrix:
    if documents.features is not None:
        return documents.features
    if vectorizer is None or documents.texts is None:
        raise XmcError("documents have neither text nor features")
    return vectorizer.transform(documents.texts)


def test_features(model: Model, documents: data.Documents) -> sparse.csr_matrix:
    """Features of documents for a model, checked against its size."""
    X = model.features_of(documents.texts) if documents.texts is not None else _features(documents, None)
    if X.shape[1] != model.tree.features:
        raise XmcError(f"{model.path}: the documents have {X.shape[1]} features, the tree has {model.tree.features}")
    if documents.labels.shape[1] != model.tree.labels:
        raise XmcError(f"{model.path}: the documents have {documents.labels.shape[1]} labels, the tree has {model.tree.labels}")
    return X


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def prune_folder(source: Path, out: Path, threshold: float, weights: str, command: Sequence[str]) -> dict[str, Any]:
    """A copy of the folder with a tree whose weights below ``threshold`` are dropped; returns sizes before and after."""
    if not threshold >= 0:
        raise XmcError(f"threshold {threshold} is not zero or positive")
    if out.exists():
        raise XmcError(f"{out}: exists already; name another folder or remove it")
    before = read_ranker(source)
    after = training.prune(before, threshold)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    xmc.write_pecos(after, part)
    try:
        size = xmc.save(after, part, weights).stat().st_size
    except xmc.ModelError as error:
        shutil.rmtree(part)
        raise XmcError(str(error)) from None
    for name in ("vectorizer.json", "labels.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, part / name)
    record = _read_json(source / "model.json", dict) if (source / "model.json").is_file() else {}
    record.pop("test", None)  # measured on other weights
    record["pruned"] = {"threshold": threshold, "command": list(command)}
    (part / "model.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.rename(out)
    counts = {
        "weights_before": sum(level.nonzeros for level in before.levels),
        "weights_after": sum(level.nonzeros for level in after.levels),
    }
    return {"threshold": threshold, **counts, "bytes": size}
