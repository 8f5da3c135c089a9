"""A cut vocabulary: its tokenizer, what is healed, and a model that is measured, saved and loaded with it."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds

from dse.errors import UsageError
from dse.quality import checkpoint, model_evaluator
from dse.quality.healing import Teacher, of_kept
from dse.quality.pruning import tokens
from dse.quality.pruning.calibration import calibrate
from dse.quality.pruning.prune import prune
from dse.quality.tasks.base import Text, embed

TEXTS = ["the cat sat on the mat", "a caterpillar sat there", "mats and cats", "there the matter ends"]


def _word_pieces():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[unused1]", "cat", "##s", "mat", "the", "##re", "sat", "on", "and", "##er"]
    letters = sorted({c for text in TEXTS for c in text if c != " "})
    vocabulary = {text: i for i, text in enumerate([*words, *letters, *(f"##{c}" for c in letters if c != "s")])}
    made = Tokenizer(kinds.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - the name of a token
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return made


def _byte_pairs():
    made = Tokenizer(kinds.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"],
                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return made


def _unigram():
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -1.0), ("▁cat", -1.5), ("mat", -1.7)]
    made = Tokenizer(kinds.Unigram([*pieces, *((c, -6.0) for c in sorted({c for text in TEXTS for c in text if c != " "}))], unk_id=0))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made


@pytest.mark.parametrize("make", [_word_pieces, _byte_pairs, _unigram])
def test_a_cut_tokenizer_writes_every_text_with_what_is_left(make, tmp_path):
    """What goes is written with smaller tokens: the same characters, no unknown token, numbers below the new size, pieces that stayed."""
    whole = make()
    record = json.loads(whole.to_str())
    texts = tokens.texts_of(record)
    stay = tokens.must_stay(record)
    assert len(stay) < len(texts)
    again = Tokenizer.from_str(json.dumps(tokens.cut(record, sorted(texts))))
    assert all(again.encode(t).ids == whole.encode(t).ids for t in TEXTS), "nothing cut, nothing changed"
    longest = max(len(whole.encode(t).ids) for t in TEXTS)
    smallest = Tokenizer.from_str(json.dumps(tokens.cut(record, stay)))
    for text in TEXTS:
        found, source = smallest.encode(text), whole.encode(text)
        assert max(found.ids) < len(stay)
        assert [texts[stay[i]] for i in found.ids] == found.tokens, "a number is the place among the kept tokens"
        assert len(found.ids) > longest or len(found.ids) > len(source.ids)
        joined = "".join(t.removeprefix("##") for t in found.tokens if t not in ("[CLS]", "[SEP]", "<s>", "</s>"))
        assert joined == "".join(t.removeprefix("##") for t in source.tokens if t not in ("[CLS]", "[SEP]", "<s>", "</s>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(record), encoding="utf-8")
    text = Text(tmp_path / "tokenizer.json", longest=64)
    assert text.cut(stay).encode(TEXTS) == [smallest.encode(t).ids for t in TEXTS]
    with pytest.raises(UsageError, match="must stay in a vocabulary"):
        tokens.cut(record, stay[:-1])


def test_what_must_stay_and_what_goes_first():
    record = json.loads(_word_pieces().to_str())
    texts = tokens.texts_of(record)
    assert {texts[i] for i in tokens.unused(record)} == {"[unused1]"}
    kept = {texts[i] for i in tokens.must_stay(record)}
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "c", "##c", "##s"} <= kept
    assert not kept & {"cat", "the", "##re", "[unused1]"}
    with pytest.raises(UsageError, match="of type 'Guess'"):
        tokens.texts_of({"model": {"type": "Guess", "vocab": {}}})


def test_a_student_is_healed_on_the_texts_that_both_write_alike(models):
    """Rows with a token that went are left out, the others carry the new numbers; a student that equals its teacher loses nothing there."""
    model = models.bert()
    batches = models.batches(model, count=3)
    kept = [0, *range(3, 50)]
    theirs, mine = of_kept(batches, kept)
    rows = [row[real.bool()].tolist() for b in theirs for row, real in zip(b["input_ids"], b["attention_mask"], strict=True)]
    wanted = [row[real.bool()].tolist() for b in batches for row, real in zip(b["input_ids"], b["attention_mask"], strict=True)]
    assert rows == [row for row in wanted if set(row) <= set(kept)]
    assert 0 < len(rows) < len(wanted)
    numbers = [row[real.bool()].tolist() for b in mine for row, real in zip(b["input_ids"], b["attention_mask"], strict=True)]
    assert [[kept[i] for i in row] for row in numbers] == rows
    calibration = calibrate(model, batches)
    assert calibration.tokens is not None
    pruned = prune(model, {"vocabulary": len(kept)}, calibration, keep_tokens=tuple(kept))
    assert pruned.selection.tokens == kept
    teacher = Teacher(model, batches, embeds=True, kept=kept)
    for number, batch in enumerate(teacher.given):
        with torch.no_grad():
            found = pruned.model(**batch).last_hidden_state[batch["attention_mask"].bool()]
        torch.testing.assert_close(found, teacher.views(number, pruned, False).hidden[-1], atol=4e-3, rtol=0)  # kept in half precision


def test_a_cut_vocabulary_is_measured_saved_and_loaded_alike(folders, monkeypatch):
    """The saved model and tokenizer give the figure that was measured; texts of kept words are written as before."""
    file = folders / "encoder" / "tokenizer.json"
    record = json.loads(file.read_text())
    record["model"] = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                       "vocab": {**{t: i for t, i in record["model"]["vocab"].items() if i < 38}, "w": 38,
                                 **{f"##{c}": 39 + c for c in range(10)}}}  # fmt: skip
    file.write_text(json.dumps(record))
    evaluator = model_evaluator.MeasuredEvaluator(
        model_evaluator.Settings(str(folders / "encoder"), str(folders / "retrieval.jsonl"), "retrieval", steps=3),
        folder=str(folders / "kept"),
    )
    stay = len(tokens.must_stay(record))
    columns = {"vocabulary": np.array([30, 60]), "layers": np.array([3, 3])}
    evaluator.check(columns)
    with pytest.raises(UsageError, match=f"vocabulary is {stay - 1} and {stay} tokens"):
        evaluator.check({"vocabulary": np.array([stay - 1])})
    figure = evaluator({"vocabulary": 30, "layers": 2}, fidelity=1.0, seed=0)["quality"]
    (kept,) = (folders / "kept").glob("*/model")
    told = json.loads((kept / "pruning.json").read_text())
    assert len(told["kept"]["tokens"]) == told["shape"]["vocabulary"] == json.loads((kept / "config.json").read_text())["vocab_size"] == 30
    assert told["measured"]["steps"] == 3
    again = checkpoint.load(kept, base=True)
    ready = model_evaluator.session(evaluator.settings)
    text = Text(kept / "tokenizer.json", longest=ready.task.text.longest)
    queries, documents = (embed(again, text.encode([record[field] for record in ready.task._scored])) for field in ("query", "document"))
    scores = queries @ documents.T
    ranks = (scores >= scores.diagonal()[:, None]).sum(1).double()
    assert figure.mean == pytest.approx(float((1 / ranks).mean()), abs=1e-6)
    with pytest.raises(UsageError, match="cannot be compared between vocabularies"):
        model_evaluator.MeasuredEvaluator(
            model_evaluator.Settings(str(folders / "decoder"), str(folders / "perplexity.jsonl"), "perplexity")
        ).check({"vocabulary": np.array([30])})
