"""A user's own pictures: JSON lines with ``pixels`` and ``label``, for a vision transformer with a classification head.

``pixels`` are rows of numbers (height, width), or (channels, height, width), already scaled as the model was trained; or the name of a
``.npy`` file of that shape beside the data. One line in five, at least 8 and at most 400, calibrates and heals and is never scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.quality.pruning.layout import Model
from dse.quality.tasks.base import BATCH, Score
from dse.quality.user_data import FIGURES, label_number, read_lines, split

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = {"pixels": (list, str), "label": (int, str)}
MAX_FILE_BYTES = 2**26


def read(path: str | Path, channels: int, side: int) -> tuple[npt.NDArray[np.float32], list[int | str]]:
    """Pictures (n, channels, side, side) and labels; the first line that is wrong is named in an error."""
    file = Path(path)
    pictures, labels = [], []
    for number, record in read_lines(file, "classification", FIELDS):
        pictures.append(_picture(file, number, record["pixels"], channels, side))
        labels.append(record["label"])
    return np.stack(pictures), labels


def _picture(file: Path, number: int, pixels: Any, channels: int, side: int) -> npt.NDArray[np.float32]:
    where = f"eval-data {file} line {number}"
    given = _stored(file, pixels, where) if isinstance(pixels, str) else pixels
    try:
        found = np.array(given, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{where}: pixels are no array of numbers") from None
    found = found[None] if found.ndim == 2 else found
    if found.shape != (channels, side, side):
        raise UsageError(f"{where}: pixels have the shape {found.shape}; the model takes {(channels, side, side)}")
    if not np.isfinite(found).all():
        raise UsageError(f"{where}: pixels hold a number that is not finite")
    return found


def _stored(file: Path, name: str, where: str) -> Any:
    """The array of a file beside the data; one elsewhere, a large one or one with pickled objects is refused."""
    folder = file.resolve().parent
    stored = (folder / name).resolve()
    if not stored.is_relative_to(folder) or stored.suffix != ".npy":
        raise UsageError(f"{where}: pixels name {name[:80]!r}; a .npy file in the folder of the data is needed")
    try:
        size = stored.stat().st_size
        loaded = np.load(stored, allow_pickle=False) if size <= MAX_FILE_BYTES else None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{where}: {stored.name} cannot be read as an array of numbers: {str(error)[:80]}") from None
    if loaded is None:
        raise UsageError(f"{where}: {stored.name} is larger than {MAX_FILE_BYTES} bytes")
    return loaded


class PictureTask:
    """Classification of a user's pictures: share of right labels."""

    name, metric, embeds = "classification", FIGURES["classification"], False

    def __init__(self, path: str | Path, *, labels: dict[str, int], classes: int, channels: int, side: int) -> None:
        pictures, given = read(path, channels, side)
        held, scored = split(len(pictures))
        self._held, self._scored, self.classes = pictures[held], pictures[scored], classes
        self._wanted = np.array([label_number(given[i], labels, classes, Path(path)) for i in scored])
        self.items = len(scored)

    def calibration(self) -> list[dict[str, Tensor]]:
        """The pictures that are never scored."""
        return list(_batches(self._held))

    def healing(self, batch: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """The same pictures, in an order drawn from the seed, again and again."""
        rng = np.random.default_rng([seed, 13])
        for _ in range(min(count, -(-len(self._held) // batch) * 4)):
            yield next(_batches(self._held[rng.choice(len(self._held), size=min(batch, len(self._held)), replace=False)]))

    def score(self, model: Model, *, items: int | None = None) -> Score:
        """Share of right labels over the first ``items`` pictures that are scored."""
        found = self.vectors(model, items=items or self.items).argmax(-1).numpy()
        return Score.of((found == self._wanted[:items]).astype(np.float64))

    def vectors(self, model: Model, *, items: int) -> Tensor:
        """Logits, a row a picture."""
        import torch

        with torch.no_grad():
            model.eval()
            return torch.cat([model(**batch).logits for batch in _batches(self._scored[:items])])


def _batches(pictures: npt.NDArray[np.float32]) -> Iterator[dict[str, Tensor]]:
    import torch

    for first in range(0, len(pictures), BATCH):
        yield {"pixel_values": torch.from_numpy(np.ascontiguousarray(pictures[first : first + BATCH]))}
