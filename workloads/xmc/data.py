"""Multi-label data: WordNet's glosses, the Extreme Classification repository's text format, PECOS's npz layout, labelled lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dse_kernels.xmc_model import ModelError
from dse_kernels.xmc_pecos import read_csc
from scipy import sparse

from workloads.xmc.errors import XmcError
from workloads.xmc.wordnet_files import WORDNET_PARTS, WORDNET_REMEDY, find_wordnet

NAMED = ("wordnet-hypernyms", "wordnet-lemmas")


@dataclass(frozen=True)
class Documents:
    """Documents and their labels: ``texts``, or ``features`` (documents, features) where there is no text; ``labels``
    (documents, labels) CSR of ones; ``names`` of the labels; ``digest`` of what was read."""

    texts: tuple[str, ...] | None
    features: sparse.csr_matrix | None
    labels: sparse.csr_matrix
    names: tuple[str, ...]
    digest: str

    @property
    def count(self) -> int:
        """Documents."""
        return int(self.labels.shape[0])

    def take(self, rows: np.ndarray) -> Documents:
        """The documents of these rows."""
        texts = tuple(self.texts[int(i)] for i in rows) if self.texts is not None else None
        features = self.features[rows] if self.features is not None else None
        return Documents(texts, features, self.labels[rows], self.names, self.digest)


def split(documents: Documents, test: int, seed: int = 0) -> tuple[Documents, Documents]:
    """Training and test documents, drawn without replacement."""
    if not 0 < test < documents.count:
        raise XmcError(f"test documents {test} is not in 1..{documents.count - 1}")
    order = np.random.default_rng(seed).permutation(documents.count)
    return documents.take(np.sort(order[test:])), documents.take(np.sort(order[:test]))


def read(source: str, part: str = "train") -> Documents:
    """Documents by name (``wordnet-hypernyms``, ``wordnet-lemmas``) or from a path.

    A ``.txt`` file has the Extreme Classification repository's form (a line ``documents features labels``, then ``l1,l2 f:v f:v``); a
    ``.tsv`` file has labels, a tab, and text on each line, labels by name, between commas; a folder has PECOS's ``X.trn.npz`` and
    ``Y.trn.npz`` (``part`` "test": ``X.tst.npz``), or ``X.npz`` and ``Y.npz``. Raises XmcError naming file and line.
    """
    if source in NAMED:
        return wordnet(source.removeprefix("wordnet-"))
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, "trn" if part == "train" else "tst")
    if not path.is_file():
        raise XmcError(f"data {source!r} is neither a file, a folder nor one of {', '.join(NAMED)}")
    if path.suffix == ".tsv":
        return _read_labelled_lines(path)
    if path.suffix == ".txt":
        return _read_repository(path)
    raise XmcError(f"{path}: a .txt (Extreme Classification repository), a .tsv (labels, tab, text) or a folder with npz is needed")


def wordnet(labels: str) -> Documents:
    """WordNet's glosses as documents; labelled by all their hypernyms (``hypernyms``) or by their words, as the files
    write them, syntactic markers included (``lemmas``)."""
    folder = find_wordnet()
    if folder is None:
        raise XmcError(f"WordNet is not here; {WORDNET_REMEDY}")
    digest = hashlib.sha256(labels.encode())
    synsets: dict[str, tuple[list[str], list[str], str]] = {}
    for name, letter in WORDNET_PARTS:
        text = (folder / f"data.{name}").read_text(encoding="utf-8", errors="replace")
        digest.update(text.encode())
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("  "):  # the licence
                continue
            try:
                synsets[letter + line.split(" ", 1)[0]] = _synset(line)
            except (ValueError, IndexError):
                raise XmcError(f"{folder / f'data.{name}'}: line {number} is not a synset (wndb(5WN))") from None
    if labels == "lemmas":
        found = [(gloss, words) for words, _, gloss in synsets.values()]
    else:
        ancestors: dict[str, frozenset[str]] = {}
        pairs = ((gloss, sorted(_ancestors(key, synsets, ancestors))) for key, (_, _, gloss) in synsets.items())
        found = [(gloss, above) for gloss, above in pairs if above]
    matrix, names = _label_matrix([held for _, held in found])
    if labels == "hypernyms":
        names = tuple(f"{synsets[name][0][0]}.{name}" for name in names)
    return Documents(tuple(gloss for gloss, _ in found), None, matrix, names, digest.hexdigest())


def _synset(line: str) -> tuple[list[str], list[str], str]:
    """Words, hypernyms and gloss of a line of data.pos, as wndb(5WN) lays it out."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = [w.lower() for w in fields[4 : 4 + 2 * count : 2]]
    at = 4 + 2 * count
    pointers = int(fields[at])
    above = []
    for i in range(pointers):
        symbol, offset, letter, _ = fields[at + 1 + 4 * i : at + 5 + 4 * i]
        if symbol in ("@", "@i"):
            above.append(("a" if letter == "s" else letter) + offset)
    if not words:
        raise ValueError(line)
    return words, above, gloss.strip()


def _ancestors(key: str, synsets: dict[str, tuple[list[str], list[str], str]], known: dict[str, frozenset[str]]) -> frozenset[str]:
    """All hypernyms of a synset; without recursion, since a chain may be long and a broken file may have a ring."""
    if key in known:
        return known[key]
    seen: set[str] = set()
    waiting = list(synsets[key][1])
    while waiting:
        above = waiting.pop()
        if above in seen or above not in synsets:
            continue
        seen.add(above)
        waiting.extend(synsets[above][1])
    known[key] = frozenset(seen - {key})
    return known[key]


def _label_matrix(held: Sequence[Sequence[str]]) -> tuple[sparse.csr_matrix, tuple[str, ...]]:
    names = tuple(sorted({name for row in held for name in row}))
    number = {name: i for i, name in enumerate(names)}
    return _ones(([number[name] for name in row] for row in held), len(held), len(names)), names


def _ones(rows: Iterator[Sequence[int]], count: int, labels: int) -> sparse.csr_matrix:
    distinct = [sorted(set(row)) for row in rows]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in distinct])]).astype(np.int64)
    indices = np.array([i for row in distinct for i in row], dtype=np.int32)
    return sparse.csr_matrix((np.ones(indices.size, np.float32), indices, indptr), shape=(count, labels))


def _read_labelled_lines(path: Path) -> Documents:
    raw = path.read_bytes()
    held, texts = [], []
    for number, line in enumerate(raw.decode("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        labels, tab, text = line.partition("\t")
        names = [name.strip() for name in labels.split(",") if name.strip()]
        if not tab or not names:
            raise XmcError(f"{path}: line {number} is not of the form label,label<tab>text")
        held.append(names)
        texts.append(text)
    if not texts:
        raise XmcError(f"{path}: holds no line")
    matrix, known = _label_matrix(held)
    return Documents(tuple(texts), None, matrix, known, hashlib.sha256(raw).hexdigest())


def _read_repository(path: Path) -> Documents:
    raw = path.read_bytes()
    lines = raw.decode("utf-8", errors="replace").splitlines()
    try:
        count, features, labels = (int(n) for n in lines[0].split())
    except (ValueError, IndexError):
        raise XmcError(f"{path}: line 1 is not 'documents features labels'") from None
    if len(lines) - 1 != count or not (0 < features < 2**31 and 0 < labels < 2**31):
        raise XmcError(f"{path}: line 1 says {count} documents, {features} features, {labels} labels; {len(lines) - 1} lines follow")
    held: list[list[int]] = []
    indices: list[int] = []
    values: list[float] = []
    indptr = [0]
    for number, line in enumerate(lines[1:], 2):
        first, _, rest = line.partition(" ")
        own = [] if ":" in first else [part for part in first.split(",") if part]
        pairs = (line if ":" in first else rest).split()
        try:
            held.append([int(label) for label in own])
            row = sorted((int(f), float(v)) for f, v in (pair.split(":") for pair in pairs))
        except ValueError:
            raise XmcError(f"{path}: line {number} is not of the form 'l1,l2 feature:value ...'") from None
        _in_range(path, number, "label", held[-1], labels)
        _in_range(path, number, "feature", [f for f, _ in row], features)
        if len({f for f, _ in row}) < len(row) or not all(np.isfinite(v) for _, v in row):
            raise XmcError(f"{path}: line {number} names a feature twice or has a value that is not finite")
        indices += [f for f, _ in row]
        values += [v for _, v in row]
        indptr.append(len(indices))
    x = sparse.csr_matrix((np.array(values, np.float32), np.array(indices, np.int32), np.array(indptr)), shape=(count, features))
    names = tuple(str(i) for i in range(labels))
    return Documents(None, x, _ones(iter(held), count, labels), names, hashlib.sha256(raw).hexdigest())


def _in_range(path: Path, number: int, what: str, values: Sequence[int], count: int) -> None:
    for value in values:
        if not 0 <= value < count:
            raise XmcError(f"{path}: line {number}: {what} {value} is not in 0..{count - 1}")


def read_queries(path: Path) -> sparse.csr_matrix:
    """A sparse matrix of queries from scipy's npz."""
    try:
        matrix = read_csc(path).tocsr()
    except ModelError as error:
        raise XmcError(str(error)) from None
    matrix.sort_indices()
    return matrix


def _read_folder(path: Path, part: str) -> Documents:
    files = [path / f"{name}.{part}.npz" for name in ("X", "Y")]
    if not files[0].is_file():
        files = [path / f"{name}.npz" for name in ("X", "Y")]
    x, y = (read_queries(file) for file in files)
    if x.shape[0] != y.shape[0]:
        raise XmcError(f"{path}: {files[0].name} has {x.shape[0]} rows, {files[1].name} has {y.shape[0]}")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    y.eliminate_zeros()
    y.data = np.ones_like(y.data)
    return Documents(None, x, y, tuple(str(i) for i in range(y.shape[1])), digest)
