"""Fixtures of measured quality: small models, skipped where torch and transformers are missing."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """The small models (small_models.py); loaded by path, as tests are no package under import mode importlib."""
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("dse_quality_small_models", Path(__file__).with_name("small_models.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(models: ModuleType, tmp_path: Path) -> Path:
    """A sentence encoder, a classifier and a Llama-style language model, each with a tokenizer of sixty words, and data for them."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    from dse.quality import checkpoint
    from dse.quality.model_evaluator import session

    words = [f"w{i}" for i in range(50)]
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, **{word: 4 + i for i, word in enumerate(words)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - the name of a token
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    made = {"encoder": models.bert(), "classifier": models.roberta(), "decoder": models.llama()}
    for name, model in made.items():
        checkpoint.save(model, tmp_path / name)
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(rng.choice(words, size=6))

    lines = {
        "retrieval": [{"query": text(), "document": text()} for _ in range(150)],
        "similarity": [{"text": text(), "other": text(), "score": float(rng.normal())} for _ in range(150)],
        "classification": [{"text": text(), "label": int(rng.integers(3))} for _ in range(150)],
        "perplexity": [{"text": text()} for _ in range(150)],
    }
    for name, records in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    session.cache_clear()
    return tmp_path
