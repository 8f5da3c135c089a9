"""Checkpoints held locally: a folder with config.json and safetensors files, read as data.

No pickle, no code that comes with a model, no network. A pruned model whose heads x head dimension differs from its hidden width is not
expressible by some classes of transformers (BERT derives the head dimension); ``load`` builds those too, from the field ``head_dim`` that
``save`` writes into config.json.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.errors import DseError, UsageError
from dse.quality.pruning.layout import Model, layout_of

if TYPE_CHECKING:
    from torch import Tensor

MAX_CONFIG_BYTES = 4 * 2**20
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")
RECORD = "pruning.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
EXTRA = "pip install 'dse-toolkit[measured]'"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice of transformers: neither is the user's."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging as theirs

    level, logger = theirs.get_verbosity(), logging.getLogger("torch.onnx")
    before = logger.level
    theirs.set_verbosity(logging.ERROR)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.set_verbosity(level)
        logger.setLevel(before)


def need_packages() -> None:
    """Say in one sentence what is missing for models held locally."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "safetensors") if find_spec(name) is None]
    if missing:
        raise DseError(f"measured quality needs {', '.join(missing)}, which is not installed; {EXTRA}")


def read_config(folder: Path) -> dict[str, Any]:
    """The checked configuration of a checkpoint; anything that is none is one sentence."""
    file = folder / "config.json"
    if not folder.is_dir():
        raise UsageError(f"model folder {folder} does not exist; a folder with config.json and *.safetensors is needed")
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
        config = json.loads(raw)
    except OSError:
        raise UsageError(f"model folder {folder} has no config.json; it is no checkpoint") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file} is not a JSON file; it is no checkpoint") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UsageError(f"{file} has no field 'model_type'; it is no configuration of a model")
    layout_of(config["model_type"])
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLED)
        told = f"{pickled[0]} is pickled code, which is never loaded; convert it to safetensors" if pickled else "it holds no weights"
        raise UsageError(f"model folder {folder} has no *.safetensors: {told}")
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
            raise UsageError(f"{file}: field {name!r} is {value!r}; a whole number of at least 1 is needed")
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint's safetensors files by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.resolve().parent != folder.resolve() and not file.is_file():
            raise UsageError(f"{file} is no file")
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageError(f"{file} is not a safetensors file: {str(error)[:120]}") from None
    return tensors


def model_class(config: dict[str, Any], *, base: bool = False) -> Any:
    """The class of transformers that a configuration names, or the base model of its type."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else None
    if not base and name is not None:
        cls = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
            return cls
        raise UsageError(f"config.json: field 'architectures' is {name!r}, which is no model class of transformers")
    return MODEL_MAPPING[type(settings_of(config))]


def settings_of(config: dict[str, Any]) -> Any:
    """The configuration object; code that a model brings (``auto_map``) is left out and never run."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = {key: value for key, value in config.items() if key not in ("auto_map", "quantization_config", "_name_or_path")}
    try:
        return CONFIG_MAPPING[config["model_type"]].from_dict(known)
    except Exception as error:  # validation of transformers raises many kinds
        raise UsageError(f"config.json is no valid configuration of {config['model_type']!r}: {str(error)[:200]}") from error


def build(settings: Any, cls: Any) -> Model:
    """A model of a configuration with empty weights, its heads as wide as ``head_dim`` says."""
    import torch

    heads, hidden = settings.num_attention_heads, settings.hidden_size
    head_dim = getattr(settings, "head_dim", None) or hidden // heads
    layout = layout_of(settings.model_type)
    derived = layout.post_norm  # BERT's classes derive the head dimension from the width; they are built with one that divides it
    plain = 1 if derived and heads * head_dim != hidden else heads
    settings.num_attention_heads = plain
    with quiet():
        model = cls._from_config(settings, attn_implementation="sdpa")
    settings.num_attention_heads = model.config.num_attention_heads = heads
    if derived and heads * head_dim != hidden:
        base = model.base_model
        for layer in base.get_submodule(layout.layers):
            inner = layer.get_submodule(layout.attention)
            inner.num_attention_heads, inner.attention_head_size, inner.all_head_size = heads, head_dim, heads * head_dim
            inner.scaling = head_dim**-0.5
            for path in (layout.query, layout.key, layout.value):
                _replace(layer, path, torch.nn.Linear(hidden, heads * head_dim))
            _replace(layer, layout.attention_out, torch.nn.Linear(heads * head_dim, hidden))
    model.eval()
    return model


def _replace(layer: Model, path: str, module: Model) -> None:
    parent, _, name = path.rpartition(".")
    setattr(layer.get_submodule(parent), name, module)


def fill(model: Model, tensors: dict[str, Tensor], where: str) -> Model:
    """Put tensors into a model. Each of its parameters must be there with its shape: nothing is left at random.

    Names may lack or carry the base model's prefix. Tensors that the model has no place for are told in the error where any is missing.
    """
    prefix = f"{model.base_model_prefix}."
    wanted = model.state_dict()
    tied = _tied(model)
    given: dict[str, Tensor] = {}
    for name, own in wanted.items():
        found = next((tensors[n] for n in (name, name.removeprefix(prefix), prefix + name, *tied.get(name, ())) if n in tensors), None)
        if found is None:
            raise UsageError(f"{where} has no tensor {name!r}; its weights are not those of {type(model).__name__}")
        if found.shape != own.shape:
            raise UsageError(f"{where}: tensor {name!r} has shape {tuple(found.shape)} and its configuration says {tuple(own.shape)}")
        given[name] = found.to(own.dtype)
    model.load_state_dict(given)
    return model


def _tied(model: Model) -> dict[str, tuple[str, ...]]:
    """Output tables that are the token table under another name."""
    if not getattr(model.config, "tie_word_embeddings", False) or model.get_output_embeddings() is None:
        return {}
    prefix = f"{model.base_model_prefix}."
    return {"lm_head.weight": (f"{prefix}embed_tokens.weight", "embed_tokens.weight")}


def load(folder: str | Path, *, base: bool = False) -> Model:
    """The model of a checkpoint folder in evaluation mode, float32; ``base`` leaves out its task head.

    Raises UsageError, one sentence, for a folder that is no checkpoint, weights that are pickled, or tensors that do not fit.
    """
    need_packages()
    path = Path(folder)
    config = read_config(path)
    settings, tensors = settings_of(config), read_tensors(path)
    with quiet():
        cls = model_class(config, base=base)
        # A base model whose pooler nobody asked for is saved without it, as the models of a search are.
        plain = base or (cls.__name__.endswith("Model") and not any("pooler." in name for name in tensors))
        extra = {"add_pooling_layer": False} if plain and config["model_type"] in ("bert", "roberta", "xlm-roberta", "vit") else {}
        model = build(settings, _partial(cls, extra))
    return fill(model.float(), tensors, str(path))


def _partial(cls: Any, extra: dict[str, Any]) -> Any:
    """The class with arguments of its constructor fixed."""
    if not extra:
        return cls

    class Built:
        @staticmethod
        def _from_config(settings: Any, **options: Any) -> Any:
            settings._attn_implementation = options.get("attn_implementation", "sdpa")
            return cls(settings, **extra)

    return Built


def same_class(model: Model) -> Any:
    """What builds a model like another: its class, and whether it has a pooler."""
    pooler = getattr(model, "pooler", ...)
    return _partial(type(model), {} if pooler is not None else {"add_pooling_layer": False})


def save(
    model: Model,
    folder: str | Path,
    *,
    source: str | Path | None = None,
    record: dict[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
) -> Path:
    """Write a loadable checkpoint: config.json, model.safetensors, the source's tokenizer files, and what was done as pruning.json.

    ``tokenizer``: what tokenizer.json holds in place of the source's, where the vocabulary was cut; the other files of the source number
    its whole vocabulary and are left out.
    """
    from safetensors.torch import save_file

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config["architectures"] = [type(model).__name__]
    (path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    seen: dict[int, str] = {}
    tensors = {}
    for name, value in model.state_dict().items():
        if seen.setdefault(value.data_ptr(), name) == name or value.data_ptr() == 0:
            tensors[name] = value.detach().contiguous().clone()  # a tied table is written once
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    if source is not None:
        for name in TOKENIZER_FILES if tokenizer is None else TOKENIZER_FILES[1:3]:
            file = Path(source) / name
            if file.is_file() and tokenizer is not None:
                told = json.loads(file.read_text(encoding="utf-8"))
                told.pop("added_tokens_decoder", None)  # by the source's numbers; tokenizer.json has them too
                (path / name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            elif file.is_file():
                shutil.copyfile(file, path / name)
    if tokenizer is not None:
        (path / TOKENIZER_FILES[0]).write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n", encoding="utf-8")
    if record is not None:
        (path / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path
