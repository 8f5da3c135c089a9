"""The evaluator of real models and a user's own data: tiny checkpoints with random weights go the whole way."""

import json
import math
import os

import numpy as np
import pytest
import torch

from dse.errors import DseError, UsageError
from dse.quality import checkpoint, user_data
from dse.quality.evaluators import parse
from dse.quality.model_evaluator import MeasuredEvaluator, Settings, session, split_knobs
from dse.quality.model_evaluator import parse as parse_settings
from dse.quality.pruning.select import Shape
from dse.quality.tasks.base import Score, reciprocal_ranks


def settings(folder, kind, task, **more):
    return Settings(str(folder / kind), data=str(folder / f"{task}.jsonl"), task=task, **{"steps": 8, **more})


CASES = (("encoder", "retrieval"), ("encoder", "similarity"), ("classifier", "classification"), ("decoder", "perplexity"))


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_every_task_goes_the_whole_way(folders, kind, task):
    evaluator = MeasuredEvaluator(settings(folders, kind, task), folder=str(folders / "kept"))
    evaluator.check()
    whole = evaluator({}, fidelity=1.0, seed=1)["quality"]
    assert whole.se == 0.0  # the unpruned model differs from itself by nothing
    knobs = {"layers": 2, "heads": 2, "ffn": 24, "hidden": 24, "weight_bits": 8}
    cut = evaluator(knobs, fidelity=1.0, seed=1)["quality"]
    assert math.isfinite(cut.mean) and cut.se >= 0.0
    kept = {json.loads(f.read_text())["weight_bits"]: f.parent for f in (folders / "kept").glob("*/record.json")}
    record = json.loads((kept[8] / "record.json").read_text())
    assert record["steps"] == 8 and record["items"] == 120 and record["figure"] == cut.mean and record["curve"]
    again = checkpoint.load(kept[8] / "model", base=task in ("retrieval", "similarity"))
    ready = session(evaluator.settings)
    assert ready.task.score(again).mean == pytest.approx(cut.mean, abs=1e-9)
    assert Shape.of(again).hidden == 24 and (kept[8] / "model" / "tokenizer.json").is_file()


def test_figures_are_what_their_rules_say(folders):
    """Each figure again, from the model's own outputs and the rule of the documentation."""
    ready = session(settings(folders, "decoder", "perplexity"))
    rows = ready.task._columns[0]
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logits = ready.model(input_ids=torch.tensor([row])).logits[0].double()
            for i, token in enumerate(row[1:]):
                total, count = total + float(torch.log_softmax(logits[i], -1)[token]), count + 1
    assert ready.task.score(ready.model).mean == pytest.approx(total / count, rel=1e-5)
    ready = session(settings(folders, "encoder", "similarity"))
    pairs, wanted = [], []
    with torch.no_grad():
        for a, b, record in zip(*ready.task._columns, ready.task._scored, strict=True):
            x, y = (ready.model(input_ids=torch.tensor([r])).last_hidden_state[0].mean(0) for r in (a, b))
            pairs.append(float(torch.nn.functional.cosine_similarity(x, y, dim=0)))
            wanted.append(record["score"])
    from scipy.stats import spearmanr

    assert ready.task.score(ready.model).mean == pytest.approx(spearmanr(pairs, wanted).statistic, abs=1e-3)


def test_reciprocal_ranks_by_hand():
    queries = torch.eye(3)
    documents = torch.tensor([[1.0, 0, 0], [2.0, 1, 0], [0, 1.0, 1]])
    # Query 0: document 1 scores 2 > 1: rank 2. Query 1: documents 1 and 2 tie at 1: the right one last, rank 2. Query 2: rank 1.
    np.testing.assert_allclose(reciprocal_ranks(queries, documents), [0.5, 0.5, 1.0])


def test_bootstrap_error_is_that_of_a_mean_and_a_difference_cancels_what_is_shared():
    values = np.random.default_rng(3).normal(size=900)
    score = Score.of(values)
    assert score.se == pytest.approx(values.std() / 30, rel=0.12)  # 1,000 resamples: known to 2 %, four of them, and the sample's own
    assert score.difference_se(Score.of(values + 0.5)) == pytest.approx(0.0, abs=1e-12)
    assert score.difference_se(Score.of(-values)) == pytest.approx(2 * score.se, rel=1e-9)


def test_what_is_measured_is_not_measured_again(folders, monkeypatch):
    from dse.quality import model_evaluator

    evaluator = MeasuredEvaluator(settings(folders, "encoder", "retrieval"), folder=str(folders / "kept"))
    first = evaluator({"ffn": 24}, fidelity=1.0, seed=3)
    monkeypatch.setattr(model_evaluator, "measure", lambda *_a, **_k: pytest.fail("measured again"))
    assert evaluator({"ffn": 24}, fidelity=1.0, seed=3) == first
    assert evaluator({"ffn": 24, "heads": 4}, fidelity=1.0, seed=3) == first  # the same model, told with more words
    with pytest.raises(pytest.fail.Exception):
        evaluator({"ffn": 24}, fidelity=1.0, seed=4)  # healing under another seed is another figure
    with pytest.raises(pytest.fail.Exception):
        evaluator({"ffn": 24}, fidelity=0.5, seed=3)


def test_a_screen_is_the_agreement_with_the_unpruned_model_and_needs_no_seed(folders):
    for kind, task in CASES[:3]:
        evaluator = MeasuredEvaluator(settings(folders, kind, task, screen=True))
        assert evaluator({}, fidelity=1.0, seed=1)["quality"].mean == pytest.approx(1.0, abs=1e-5)
        one, other = (evaluator({"ffn": 8, "hidden": 24}, fidelity=1.0, seed=s)["quality"] for s in (1, 2))
        assert one == other and 0.0 < one.mean < 1.0


def test_less_fidelity_is_fewer_steps_and_items(folders):
    evaluator = MeasuredEvaluator(settings(folders, "encoder", "retrieval", steps=20), folder=str(folders / "kept"))
    evaluator({"ffn": 24}, fidelity=0.1, seed=0)
    record = json.loads(next((folders / "kept").glob("*/record.json")).read_text())
    assert (record["steps"], record["items"]) == (2, 100)


def test_a_half_written_record_is_measured_again(folders):
    evaluator = MeasuredEvaluator(settings(folders, "encoder", "retrieval"), folder=str(folders / "kept"))
    first = evaluator({"ffn": 24}, fidelity=1.0, seed=3)
    file = next((folders / "kept").glob("*/record.json"))
    file.write_text(file.read_text()[:40])
    assert evaluator({"ffn": 24}, fidelity=1.0, seed=3) == first


def test_words_are_read_and_written():
    found = parse_settings("minilm?steps=50&items=400&rounding=aware")
    assert (found.source, found.steps, found.items, found.rounding) == ("minilm", 50, 400, "aware")
    assert parse_settings(found.word().removeprefix("measured:")) == found
    assert isinstance(parse("measured:minilm", workload="minilm"), MeasuredEvaluator)
    with pytest.raises(DseError, match="did you mean 'steps'"):
        parse_settings("minilm?step=5")
    with pytest.raises(UsageError, match="steps of measured:minilm is 'x'"):
        parse_settings("minilm?steps=x")
    with pytest.raises(UsageError, match="items is 3; at least 100"):
        parse_settings("minilm?items=3")
    with pytest.raises(UsageError, match="brings its own items"):
        parse_settings("minilm?data=a&task=retrieval")
    with pytest.raises(UsageError, match="needs --eval-data FILE"):
        parse_settings("folder")
    with pytest.raises(DseError, match="did you mean 'retrieval'"):
        parse_settings("folder?data=a&task=retrival")


def test_knobs_of_a_design():
    own = Shape(3, 32, 4, 2, 8, 48, 60)
    assert split_knobs({"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "weight_bits": 4}, own) == ({"layers": 2}, 4)
    wrongs = {"heads are kept whole": {"head_dim": 16}, "'window' is none": {"window": 4}, "nearest is 4": {"weight_bits": 5},
              "pruning needs 1 to 3": {"layers": 9}}  # fmt: skip
    for told, wrong in wrongs.items():
        with pytest.raises(UsageError, match=told):
            split_knobs(wrong, own)


# -- what users may give -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 3 is not JSON"),
        ("[1]", "line 3 holds .1., must hold a JSON object"),
        ('{"text": "w1"}', "line 3 has no field 'label'"),
        ('{"text": "w1", "label": true}', "label is 'True'; a whole number or text"),
        ('{"text": 4, "label": 1}', "text is '4'; text is needed"),
        ('{"text": " ", "label": 1}', "text is empty"),
    ],
)
def test_data_with_a_wrong_line_is_one_sentence(tmp_path, line, told):
    file = tmp_path / "d.jsonl"
    file.write_text('{"text": "w1", "label": 0}\n\n' + line + "\n")
    with pytest.raises(UsageError, match=told):
        user_data.read(file, "classification")


def test_other_wrong_data(tmp_path):
    file = tmp_path / "d.jsonl"
    with pytest.raises(UsageError, match="cannot be read"):
        user_data.read(file, "retrieval")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not text"):
        user_data.read(file, "retrieval")
    file.write_text('{"text": "w1"}\n')
    with pytest.raises(UsageError, match="has 1 lines; at least 18"):
        user_data.read(file, "perplexity")
    file.write_text('{"text": "w1", "other": "w2", "score": NaN}\n')
    with pytest.raises(UsageError, match="score is 'nan'"):
        user_data.read(file, "similarity")


def test_folders_that_are_no_checkpoints(folders, tmp_path):
    checked = [
        ("nowhere", lambda _: None, "does not exist"),
        ("empty", lambda p: p.mkdir(), "has no config.json"),
        ("text", lambda p: _config(p, "no json"), "is not a JSON file"),
        ("list", lambda p: _config(p, "[]"), "no field 'model_type'"),
        ("kind", lambda p: _config(p, '{"model_type": "brt"}'), "did you mean 'bert'"),
        ("none", lambda p: _config(p, '{"model_type": "bert"}'), "it holds no weights"),
    ]
    for name, make, told in checked:
        make(tmp_path / name)
        with pytest.raises(DseError, match=told):
            checkpoint.load(tmp_path / name)
    pickled = tmp_path / "pickled"
    _config(pickled, '{"model_type": "bert"}')
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match=r"pytorch_model.bin is pickled code, which is never loaded"):
        checkpoint.load(pickled)
    broken = tmp_path / "encoder" / "model.safetensors"
    broken.write_bytes(b"\x00" * 64)
    with pytest.raises(UsageError, match="is not a safetensors file"):
        checkpoint.load(tmp_path / "encoder")


def _config(folder, text):
    folder.mkdir()
    (folder / "config.json").write_text(text)


def test_tensors_that_do_not_fit_are_named(folders):
    from safetensors.torch import load_file, save_file

    file = folders / "encoder" / "model.safetensors"
    whole = load_file(file)
    name = "encoder.layer.1.output.dense.weight"
    save_file({k: v for k, v in whole.items() if k != name}, file)
    with pytest.raises(UsageError, match=r"has no tensor 'encoder.layer.1.output.dense.weight'"):
        checkpoint.load(folders / "encoder")
    save_file({**whole, name: whole[name][:, :5].contiguous()}, file)
    with pytest.raises(UsageError, match=r"has shape \(32, 5\) and its configuration says \(32, 48\)"):
        checkpoint.load(folders / "encoder")


def test_a_models_own_code_is_never_run(folders):
    file = folders / "encoder" / "config.json"
    config = json.loads(file.read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (folders / "encoder" / "evil.py").write_text("raise SystemExit('ran')")
    file.write_text(json.dumps(config))
    assert Shape.of(checkpoint.load(folders / "encoder")).layers == 3
    config["architectures"] = ["os.system"]
    file.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no model class of transformers"):
        checkpoint.load(folders / "encoder")


def test_tasks_that_do_not_fit_the_model(folders):
    for kind, task, told in (("encoder", "classification", "needs a model ForSequenceClassification"),
                             ("encoder", "perplexity", "needs a model ForCausalLM")):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            session(settings(folders, kind, task))
    file = folders / "classification.jsonl"
    file.write_text(file.read_text().replace('"label": 2', '"label": 7'))
    with pytest.raises(UsageError, match="label 7 is none of the model's 3"):
        session(settings(folders, "classifier", "classification"))
    os.remove(folders / "encoder" / "tokenizer.json")
    with pytest.raises(UsageError, match=r"has no tokenizer.json"):
        session(settings(folders, "encoder", "retrieval"))
