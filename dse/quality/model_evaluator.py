"""The evaluator ``measured:SOURCE``: prune a real model to a design's knobs, heal it, quantise it, and measure it.

``measured:minilm`` is a task of the package; ``measured:FOLDER`` a checkpoint of one's own with ``--eval-data`` and ``--task``. The
settings are part of the word (``measured:minilm?steps=200&items=800``), so that a study that is resumed measures as it began.

Everything runs on one thread of the process that measures: figures are then the same whatever else the machine does, and ``--workers``
uses further cores. What is the same for all designs (weights, calibration moments, the teacher's answers) is made once a process.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlencode

from dse.errors import UsageError, unknown_name
from dse.quality import checkpoint, picture_data
from dse.quality.healing import Healed, Healing, Teacher, heal
from dse.quality.measured import Measured
from dse.quality.picture_data import PictureTask
from dse.quality.pruning import select, tokens
from dse.quality.pruning.calibration import Calibration, calibrate, input_moments
from dse.quality.pruning.layout import Model, layout_of
from dse.quality.pruning.prune import Pruned, prune
from dse.quality.pruning.quantise import BITS, Quantised, check_bits, quantise_model
from dse.quality.tasks import minilm, wordnet
from dse.quality.tasks.base import MeasuredTask, Score, Text, TextTask, agreement
from dse.quality.user_data import FIELDS, PERPLEXITY, UserTask, read
from dse.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

FORM = "measured:minilm or measured:FOLDER"
NAMED = ("minilm",)
UNQUANTISED = (16, 32)
SCREEN_ITEMS = 200
GROUP = 64  # inputs that share a scale below 8 bits
MIN_ITEMS = 100
FOLDER = "measured"
TASK_NAMES = tuple(FIELDS)


@dataclass(frozen=True)
class Settings:
    """How a model is measured.

    ``source`` a named task or a checkpoint folder; ``data`` and ``task`` a user's items; ``steps`` and ``seconds`` (CPU) bound healing;
    ``items`` bounds what is scored; ``rate`` Adam's learning rate, smaller than that of :class:`Healing`: a model that lost little, as most
    of a front, is thrown back by larger steps before it gains; ``lora`` the rank of adapters (0: all weights); ``rounding`` nearest or
    aware (activation-aware); ``screen``: no healing, and in place of the figure the agreement (mean cosine) with the unpruned model on 200
    items, which ranks models alike at a small part of the cost.
    """

    source: str
    data: str | None = None
    task: str | None = None
    steps: int = 200
    seconds: float | None = None
    items: int | None = None
    rate: float = 3e-4
    lora: int = 0
    rounding: str = "nearest"
    screen: bool = False

    def __post_init__(self) -> None:
        if self.rounding not in ("nearest", "aware"):
            raise unknown_name("rounding", self.rounding, ("nearest", "aware"))
        if self.items is not None and self.items < MIN_ITEMS:
            raise UsageError(f"items is {self.items}; at least {MIN_ITEMS} are needed for a standard error that means something")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"heal-seconds is {self.seconds}; a positive number is needed")
        Healing(steps=self.steps, rate=self.rate, lora_rank=self.lora)  # checks them
        if self.source in NAMED:
            if self.data is not None or self.task is not None:
                raise UsageError(f"measured:{self.source} brings its own items; --eval-data and --task belong to measured:FOLDER")
        elif self.data is None or self.task is None:
            raise UsageError(f"measured:{self.source} needs --eval-data FILE.jsonl and --task {'|'.join(TASK_NAMES)}")
        elif self.task not in TASK_NAMES:
            raise unknown_name("task", self.task, TASK_NAMES)

    def word(self) -> str:
        """The evaluator's word that :func:`parse` reads."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "source" and getattr(self, f.name) != f.default}
        told = {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}
        return f"measured:{self.source}" + (f"?{urlencode(told)}" if told else "")


def parse(rest: str) -> Settings:
    """The settings of ``SOURCE?name=value&...``; an unknown name or a value of the wrong kind is an error."""
    source, _, query = rest.partition("?")
    kinds = {"steps": int, "seconds": float, "items": int, "rate": float, "lora": int, "screen": int}
    known = [f.name for f in fields(Settings) if f.name != "source"]
    chosen: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise unknown_name(f"setting of measured:{source}", name, known)
        try:
            chosen[name] = kinds.get(name, str)(value)
        except ValueError:
            raise UsageError(f"{name} of measured:{source} is {value!r}; a number is needed") from None
    if "screen" in chosen:
        chosen["screen"] = bool(chosen["screen"])
    return Settings(source, **chosen)


@dataclass(frozen=True)
class MeasuredEvaluator:
    """A design's knobs in, its measured figure out; see the module.

    ``folder``: where records (and checkpoints of healed models) are kept, by the hash of everything that decides the figure. A
    measurement that is there is not made again.
    """

    settings: Settings
    metrics: tuple[str, ...] = ("quality",)
    folder: str | None = None

    def check(self, models: Mapping[str, Any] | None = None) -> None:
        """Tell what is wrong with the model, the items or the space before a search starts; no weights are read.

        ``models``: columns of knobs, every row of which must be a model that this one can be cut to.
        """
        checkpoint.need_packages()
        settings = self.settings
        if settings.source == "minilm":
            folder = minilm.model_folder()
            wordnet.find_folder()
        else:
            assert settings.task is not None and settings.data is not None  # checked when they were set
            folder = Path(settings.source)
            config = checkpoint.settings_of(checkpoint.read_config(folder))
            if hasattr(config, "image_size"):
                _need_classification(settings.task, folder, config)
                picture_data.read(settings.data, config.num_channels, config.image_size)
            else:
                read(settings.data, settings.task)
        own = select.Shape.of_settings(checkpoint.settings_of(checkpoint.read_config(folder)))
        if models is None:
            return
        smallest = int(models["vocabulary"].min()) if "vocabulary" in models else own.vocabulary
        if smallest != own.vocabulary and own.vocabulary is not None:
            if settings.task == "perplexity":
                raise UsageError(PERPLEXITY)
            stay = len(tokens.must_stay(Text(folder / "tokenizer.json", longest=1).record))
            if smallest is not None and smallest < stay:
                raise UsageError(f"vocabulary is {smallest} and {stay} tokens (special ones, characters) must stay; nearest is {stay}")
        for row in zip(*(column.tolist() for column in models.values()), strict=True):
            knobs = dict(zip(models, row, strict=True))
            try:
                split_knobs(knobs, own)
            except UsageError as error:
                raise UsageError(f"the space holds a model that measured:{settings.source} cannot be cut to: {error}") from None

    def __call__(self, parameters: Mapping[str, Any], *, fidelity: float, seed: int) -> dict[str, Measured]:
        settings = self.settings
        if not 0.0 < fidelity <= 1.0:
            raise UsageError(f"fidelity is {fidelity}; above 0 and at most 1 is needed")
        with one_thread():
            ready = session(replace(settings, screen=False, steps=200, seconds=None))
            knobs, bits = split_knobs(parameters, select.Shape.of(ready.model))
            steps = 0 if settings.screen else round(settings.steps * fidelity)
            items = _items(settings, ready.task.items, fidelity)
            # Nothing is drawn where nothing is healed, so that the figure is the same under any seed.
            key = measurement_key(ready, settings, knobs, bits, items, steps, seed if steps else 0)
            record = self._kept(key)
            if record is None:
                record = measure(ready, settings, knobs, bits, items=items, steps=steps, seed=seed, keep=self._place(key))
                self._keep(key, record)
        return {self.metrics[0]: Measured(record["figure"], record["figure_se"])}

    def _place(self, key: str) -> Path | None:
        return None if self.folder is None else Path(self.folder) / key

    def _kept(self, key: str) -> dict[str, Any] | None:
        place = self._place(key)
        if place is None or not (place / "record.json").is_file():
            return None
        try:
            found = json.loads((place / "record.json").read_text(encoding="utf-8"))
        except ValueError:
            return None  # not ours, or damaged: measured again
        return found if isinstance(found, dict) else None

    def _keep(self, key: str, record: Mapping[str, Any]) -> None:
        place = self._place(key)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            half = place / "record.json.half"
            half.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            half.rename(place / "record.json")  # whole or not at all


@dataclass(frozen=True, eq=False)
class Session:
    """What all designs share: the unpruned model, its task, calibration, its own figure, and the teacher of healing."""

    task: MeasuredTask
    model: Model
    calibration: Calibration
    folder: Path
    content: str  # hash of weights and items
    teachers: dict[tuple[int, ...] | None, Teacher]  # by the tokens of a cut vocabulary; each made when the first such model is healed
    base: dict[int, Score]
    vectors: dict[int, Any]


@lru_cache(maxsize=2)
def session(settings: Settings) -> Session:
    """The shared part of all measurements with these settings, made once a process."""

    checkpoint.need_packages()
    with one_thread(), checkpoint.quiet():
        if settings.source == "minilm":
            folder = minilm.model_folder()
            task: MeasuredTask = minilm.MiniLmTask(folder)
            model = checkpoint.load(folder, base=True)
            data = wordnet.find_folder() / "data.noun"
        else:
            assert settings.task is not None and settings.data is not None  # checked when they were set
            folder, data = Path(settings.source), Path(settings.data)
            model = checkpoint.load(folder, base=settings.task in ("similarity", "retrieval"))
            task = _user_task(settings.task, data, folder, model)
        content = hashlib.sha256()
        for file in (*sorted(folder.glob("*.safetensors")), folder / "config.json", data):
            with file.open("rb") as stream:
                content.update(hashlib.file_digest(stream, "sha256").digest())
        calibration = calibrate(model, task.calibration(), hidden=True)
    return Session(task, model, calibration, folder, content.hexdigest(), {}, {}, {})


def _user_task(name: str, data: Path, folder: Path, model: Model) -> MeasuredTask:
    kind = type(model).__name__
    if name == "classification" and not kind.endswith(("ForSequenceClassification", "ForImageClassification")):
        raise UsageError(f"model folder {folder} holds a {kind}; task classification needs a model ForSequenceClassification")
    if name == "perplexity" and not kind.endswith("ForCausalLM"):
        raise UsageError(f"model folder {folder} holds a {kind}; task perplexity needs a model ForCausalLM")
    config = model.config
    if model.main_input_name == "pixel_values":
        _need_classification(name, folder, config)
        return PictureTask(data, labels={str(text): int(number) for text, number in (config.label2id or {}).items()},
                           classes=int(config.num_labels), channels=config.num_channels, side=config.image_size)  # fmt: skip
    longest = int(getattr(config, "max_position_embeddings", 512)) - (2 if config.model_type in ("roberta", "xlm-roberta") else 0)
    labels = {str(text): int(number) for text, number in (config.label2id or {}).items()}
    return UserTask(data, name, folder, labels=labels, classes=int(config.num_labels), longest=longest)


def _need_classification(task: str, folder: Path, config: Any) -> None:
    if task != "classification":
        raise UsageError(f"model folder {folder} holds a model of pictures ({config.model_type}); its task is classification, not {task}")


def split_knobs(parameters: Mapping[str, Any], own: select.Shape) -> tuple[dict[str, int], int]:
    """The knobs that prune, and the bits of the weights (32 where the design says nothing); a knob that nothing here turns is an error."""
    knobs: dict[str, int] = {}
    bits = 32
    for name, value in parameters.items():
        if name == "weight_bits":
            bits = int(value)
            if bits not in UNQUANTISED:
                check_bits(bits)
        elif name == "head_dim":
            if int(value) != own.head_dim:
                raise UsageError(f"head_dim is {value} and the model's heads have {own.head_dim}; heads are kept whole or go")
        elif name in select.KNOBS:
            if int(value) != getattr(own, name):
                knobs[name] = int(value)
        else:
            raise UsageError(f"knob {name!r} is none that a measured model has; they are {', '.join((*select.KNOBS, 'weight_bits'))}")
    own.target(knobs)  # what cannot be cut is told before anything is computed
    return knobs, bits


def _items(settings: Settings, there: int, fidelity: float) -> int:
    if settings.screen:
        return min(there, SCREEN_ITEMS)
    most = min(there, settings.items or there)
    return min(most, max(MIN_ITEMS, round(most * fidelity)))


def measurement_key(ready: Session, settings: Settings, knobs: Mapping[str, int], bits: int, items: int, steps: int, seed: int) -> str:
    """Hash of everything that decides a figure: the contents of weights and items, the knobs, the recipe, the seed, this version."""
    what = {
        "content": ready.content,
        "knobs": dict(sorted(knobs.items())),
        "bits": bits,
        "items": items,
        "steps": steps,
        "seed": seed,
        "screen": settings.screen,
        "recipe": [settings.task, settings.rate, settings.lora, settings.rounding, settings.seconds],
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def measure(
    ready: Session, settings: Settings, knobs: Mapping[str, int], bits: int, *, items: int, steps: int, seed: int, keep: Path | None = None
) -> dict[str, Any]:
    """Prune, heal, quantise, measure one model; the record of it. ``keep``: a folder for its checkpoint.

    ``figure_se`` is the standard error of the difference from the unpruned model on the same items, which is what a comparison of designs
    needs; ``sampling_se`` is that of the figure itself, which all designs share.
    """

    began = time.process_time()
    with one_thread(), checkpoint.quiet():
        pruned, healed, quantised = make(ready, settings, knobs, bits, steps=steps, seed=seed)
        record = _figures(ready, settings, pruned.model, pruned, items)
        record |= {
            "source": settings.source,
            "task": ready.task.name,
            "knobs": dict(knobs),
            "shape": vars(pruned.shape),
            "weight_bits": bits,
            "items": items,
            "steps": healed.steps,
            "seed": seed,
            "heal_cpu_s": healed.cpu_s,
            "cpu_s": time.process_time() - began,
            "curve": healed.curve,
            "layers_kept": pruned.selection.layers,
        }
        if not (math.isfinite(record["figure"]) and math.isfinite(record["figure_se"])):
            raise UsageError(f"the figure of {dict(knobs)} is {record['figure']}; the pruned model gives no finite output")
        if keep is not None and not settings.screen:
            told = {**pruned.record(), "measured": {k: v for k, v in record.items() if k != "curve"}}
            told["quantised"] = {name: {"bits": q.bits, "group": q.group, "stored_bits": q.stored_bits} for name, q in quantised.items()}
            kept = pruned.selection.tokens
            written = None if kept is None else tokens.cut(cast(TextTask, ready.task).text.record, kept)
            checkpoint.save(pruned.model, keep / "model", source=ready.folder, record=told, tokenizer=written)
    return record


def make(
    ready: Session, settings: Settings, knobs: Mapping[str, int], bits: int, *, steps: int, seed: int
) -> tuple[Pruned, Healed, dict[str, Quantised]]:
    """The model of a design: cut, healed and quantised."""
    stay: tuple[int, ...] = ()
    calibration = ready.calibration
    if "vocabulary" in knobs:
        record = cast(TextTask, ready.task).text.record
        stay, calibration = tokens.must_stay(record), replace(calibration, tokens=_token_counts(ready, record))
    pruned = prune(ready.model, knobs, calibration, keep_tokens=stay)
    healed = Healed(0, 0.0)
    if steps and knobs:  # the unpruned model has nothing to heal
        kept = None if pruned.selection.tokens is None else tuple(pruned.selection.tokens)
        if kept not in ready.teachers:
            ready.teachers[kept] = Teacher(ready.model, list(ready.task.healing(16, 200, 0)), embeds=ready.task.embeds, kept=kept)
        recipe = Healing(steps=steps, rate=settings.rate, lora_rank=settings.lora, seed=seed, time_limit_s=settings.seconds)
        healed = heal(pruned, ready.teachers[kept], recipe)
    quantised: dict[str, Quantised] = {}
    if bits in BITS:
        names = linear_layers(pruned.model)
        moments = input_moments(pruned.model, names, ready.task.calibration()) if settings.rounding == "aware" else None
        quantised = quantise_model(pruned.model, names, bits, group=None if bits == 8 else GROUP, moments=moments)
    return pruned, healed, quantised


def _token_counts(ready: Session, record: Mapping[str, Any]) -> Tensor:
    """How often each token occurs in the texts that calibrate and heal; -1 for places of the vocabulary that no text uses."""
    import torch

    assert ready.calibration.tokens is not None  # a model with a vocabulary
    counts = ready.calibration.tokens.clone()
    for batch in ready.task.healing(16, 200, 0):
        counts += torch.bincount(batch["input_ids"][batch["attention_mask"].bool()], minlength=len(counts))
    counts[[i for i in tokens.unused(record) if i < len(counts)]] = -1
    return counts


def _figures(ready: Session, settings: Settings, model: Model, pruned: Pruned, items: int) -> dict[str, Any]:
    kept = pruned.selection.tokens
    task = ready.task if kept is None else cast(TextTask, ready.task).with_vocabulary(kept)
    if items not in ready.vectors and settings.screen:
        ready.vectors[items] = ready.task.vectors(ready.model, items=items)
    if settings.screen:
        import torch

        mine, theirs = task.vectors(model, items=items), ready.vectors[items]
        if mine.shape != theirs.shape:
            theirs = theirs @ pruned.turn.T.to(theirs.dtype) if pruned.turn is not None else theirs[:, pruned.selection.hidden]
        if theirs.shape[1] == 1:  # a likelihood an item: how close they are, not their direction
            return {"figure": -float((mine - theirs).abs().mean()), "figure_se": 0.0, "sampling_se": 0.0, "metric": "agreement"}
        by_item = torch.nn.functional.cosine_similarity(mine, theirs, dim=-1).double()
        error = float(by_item.std() / math.sqrt(len(by_item)))
        return {"figure": agreement(mine, theirs), "figure_se": error, "sampling_se": error, "metric": "cosine to the unpruned model"}
    if items not in ready.base:
        ready.base[items] = ready.task.score(ready.model, items=items)
    base, score = ready.base[items], task.score(model, items=items)
    return {
        "figure": score.mean,
        "figure_se": score.difference_se(base),
        "sampling_se": score.se,
        "unpruned": base.mean,
        "metric": ready.task.metric,
    }


def linear_layers(model: Model) -> list[str]:
    """Names of the linear layers inside the transformer layers: what quantisation acts on."""
    import torch

    inside = f"{layout_of(model.config.model_type).layers}."
    prefix = "" if model is model.base_model else f"{model.base_model_prefix}."
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name.startswith(prefix + inside)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread while the context lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
