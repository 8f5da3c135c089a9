"""A search by a real model through the command line: screened, broken off and resumed, checkpoints kept; rows that are exact."""

import csv
import json

import numpy as np
import pytest
import torch

import workloads
from dse.cli import main
from dse.errors import UsageError
from dse.quality import checkpoint, evaluators, model_evaluator
from dse.quality.pruning import onnx_file
from dse.quality.pruning.calibration import calibrate
from dse.quality.pruning.prune import prune
from dse.quality.pruning.select import Shape
from dse.searches.measured_models import knob_effects
from dse.searches.plan import MeasuredSettings, screened
from workloads import library
from workloads.compare import differences
from workloads.errors import WorkloadError


@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_the_rows_of_the_exported_graph_are_those_of_the_knobs(models, kind, tmp_path):
    """Importing the ONNX file of a pruned model gives the products that the knobs' closed form gives, exactly."""
    model = models.ALL[kind]()
    knobs = {"layers": 2, "heads": 2, "ffn": 24, "hidden": 24} | ({} if kind == "vit" else {"vocabulary": 40})
    pruned = prune(model, knobs, calibrate(model, models.batches(model), hidden=True))
    file = onnx_file.write(pruned.model, tmp_path / "m.onnx", sequence=9)
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    family = library.load(f"knobs:{tmp_path}")
    settings = (
        {"head_dim": 8} | ({} if kind == "vit" else {"sequence": 9}) | ({"kv_heads": 1, "all_logits": True} if kind == "llama" else {})
    )
    closed = family.build(**knobs, **settings)
    assert not differences(closed.phases[0].table, workloads.load(str(file)).build().phases[0].table)
    counted = sum(p.numel() for p in pruned.model.parameters())
    assert closed.parameter_count() == counted - (24 * 24 + 24 if kind == "bert" else 0)  # the test's encoder has a pooler


def test_models_that_one_can_be_cut_to():
    grid = library.load("minilm").model_grid("pruned")
    assert {name: sorted(set(column.tolist())) for name, column in grid.items()} == {
        "layers": [3, 4, 5, 6], "hidden": [320, 352, 384], "heads": [3, 6, 9, 12], "head_dim": [32], "ffn": [384, 768, 1152, 1536],
        "weight_bits": [4, 8]}  # fmt: skip
    assert len(grid["layers"]) == 4 * 3 * 4 * 4 * 2
    built = library.load("minilm").build(**grid, sequence=16)
    assert built.macs().min() > 0


def test_groups_of_a_checkpoint_stay_whole(folders):
    grid = library.load(f"knobs:{folders / 'decoder'}").model_grid("pruned")
    assert set(zip(grid["heads"].tolist(), grid["kv_heads"].tolist(), strict=True)) == {(4, 2), (2, 1)}
    (folders / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(WorkloadError, match="model type whose dimensions are knobs"):
        library.load(f"knobs:{folders}")


def test_a_budget_is_shared_between_looks_and_measurements():
    plan = screened(MeasuredSettings(quality="measured:minilm", budget=40))
    assert (plan.budget, plan.proxy_top, plan.proxy) == (30, 10, "measured:minilm?screen=1")
    assert screened(MeasuredSettings(quality="measured:minilm?steps=5", budget=40)).proxy == "measured:minilm?steps=5&screen=1"
    for same in (MeasuredSettings(quality="measured:minilm", budget=7), MeasuredSettings(quality="python:a:b", budget=40)):
        assert screened(same) is same


def test_effects_of_knobs_are_the_least_squares_slopes():
    rng = np.random.default_rng(0)
    records = []
    for _ in range(40):
        shape = {
            "layers": int(rng.integers(1, 9)),
            "heads": int(rng.choice([2, 4, 8])),
            "kv_heads": 1,
            "ffn": 64,
            "hidden": 32,
            "vocabulary": 9,
        }
        figure = 0.3 * np.log2(shape["layers"]) - 0.1 * np.log2(shape["heads"]) + 0.01 * rng.normal()
        records.append({"shape": shape, "weight_bits": 8, "figure": float(figure)})
    found = {e["knob"]: e for e in knob_effects(records)}
    assert set(found) == {"layers", "heads"}
    assert abs(found["layers"]["effect"] - 0.3) < 4 * found["layers"]["se"] < 0.02
    assert abs(found["heads"]["effect"] + 0.1) < 4 * found["heads"]["se"] < 0.02
    assert knob_effects(records[:4]) == []


def _search(monkeypatch, folders, out, *more):
    monkeypatch.chdir(folders)
    words = {"--workload": "encoder", "--quality": "measured:encoder", "--eval-data": "retrieval.jsonl", "--task": "retrieval"}
    words |= {"--heal-steps": "3", "--budget": "8", "--out": out}
    given = [word for pair in words.items() for word in pair]
    return main(["search", *given, "--set", "sequence=16", "--set", "cores=1", "--set", "depth=16", *more])


def _rows(folder):
    return list(csv.DictReader((folder / "pareto.csv").read_text(encoding="utf-8").splitlines()))


def test_a_search_ends_with_models_and_accelerators_and_resumes(monkeypatch, folders, capsys):
    assert _search(monkeypatch, folders, "run") == 0
    rows = _rows(folders / "run")
    assert rows
    for row in rows:
        own = Shape.of(checkpoint.load(folders / "run" / "designs" / row["design"] / "model", base=True))
        assert [own.layers, own.hidden, own.heads, own.ffn] == [int(row[n]) for n in ("layers", "hidden", "heads", "ffn")]
    assert not list((folders / "run" / "measured").glob("*/model"))
    assert main(["resume", "run"]) == 0
    assert _rows(folders / "run") == rows
    capsys.readouterr()


def test_a_search_that_breaks_off_goes_on_to_the_same_front(monkeypatch, folders, capsys):
    assert _search(monkeypatch, folders, "whole") == 0
    calls = iter(range(100))
    whole = model_evaluator.measure

    def dies(*args, **more):
        if next(calls) == 7:
            raise KeyboardInterrupt
        return whole(*args, **more)

    monkeypatch.setattr(model_evaluator, "measure", dies)
    assert _search(monkeypatch, folders, "broken") == 130
    assert main(["resume", "broken"]) == 0
    assert _rows(folders / "broken") == _rows(folders / "whole")
    capsys.readouterr()


def _pictures(models, tmp_path, *, stored=False):
    """A tiny ViT with random weights and 60 labelled pictures, in the lines or in files beside them."""
    checkpoint.save(models.vit(), tmp_path / "vit")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60):
        pixels = rng.random((1, 16, 16), dtype=np.float32)
        np.save(tmp_path / f"{i}.npy", pixels)
        lines.append({"pixels": f"{i}.npy" if stored else pixels[0].round(4).tolist(), "label": int(rng.integers(5))})
    file = tmp_path / "pictures.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("folder", "more", "kind"),
    [
        ("encoder", ("--eval-data", "retrieval.jsonl", "--task", "retrieval", "--set", "sequence=16"), "BertModel"),
        ("decoder", ("--eval-data", "perplexity.jsonl", "--task", "perplexity", "--set", "sequence=16"), "LlamaForCausalLM"),
        ("vit", ("--eval-data", "pictures.jsonl", "--task", "classification"), "ViTForImageClassification"),
    ],
)
def test_a_checkpoint_of_ones_own_is_searched_by_its_folder(monkeypatch, models, folders, capsys, folder, more, kind):
    """Encoder, Llama-style decoder and vision transformer with random weights: one option names the model."""
    _pictures(models, folders)
    monkeypatch.chdir(folders)
    words = ["--model-dir", folder, "--heal-steps", "2", "--budget", "8", "--set", "cores=1", "--set", "depth=16", "--out", "run"]
    assert main(["search", *words, *more]) == 0
    rows = _rows(folders / "run")
    assert rows
    for row in rows:
        place = folders / "run" / "designs" / row["design"] / "model"
        assert json.loads((place / "config.json").read_text())["architectures"] == [kind]
        assert Shape.of(checkpoint.load(place, base=kind == "BertModel")).ffn == int(row["ffn"])
    capsys.readouterr()


def test_pictures_are_scored_by_the_share_of_right_labels(models, folders):
    """In lines or in files: the same figure, which is the model's own accuracy on the lines that are scored."""
    found = []
    for stored in (False, True):
        file = _pictures(models, folders, stored=stored)
        model_evaluator.session.cache_clear()
        word = f"measured:{folders / 'vit'}?data={file}&task=classification&steps=0"
        found.append(evaluators.parse(word, workload="")({}, fidelity=1.0, seed=0)["quality"].mean)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    model = checkpoint.load(folders / "vit")
    held = set(np.random.default_rng(0).permutation(60)[:12].tolist())
    right = []
    for i, record in enumerate(records):
        if i not in held:
            pixels = torch.from_numpy(np.load(folders / record["pixels"]))[None]
            with torch.no_grad():
                right.append(int(model(pixel_values=pixels).logits.argmax()) == record["label"])
    assert found[1] == pytest.approx(np.mean(right)) and abs(found[0] - found[1]) < 0.05  # lines hold four digits


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        ([[1, 2], [3, 4]], r"pixels have the shape \(1, 2, 2\); the model takes \(1, 16, 16\)"),
        ([[1, "a"]], "pixels are no array of numbers"),
        ([[1, 2], [3]], "pixels are no array of numbers"),
        ("../outside.npy", "a .npy file in the folder of the data is needed"),
        ("pickled.npy", "cannot be read as an array of numbers"),
        ("missing.npy", "cannot be read as an array of numbers"),
        (3, "rows of numbers or text is needed"),
    ],
)
def test_pictures_that_are_none_are_one_sentence(models, folders, pixels, told):
    file = _pictures(models, folders)
    np.save(folders / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], json.dumps({"pixels": pixels, "label": 0}), *lines[3:]]))
    with pytest.raises(UsageError, match=f"line 3.*{told}"):
        evaluators.parse(f"measured:{folders / 'vit'}?data={file}&task=classification", workload="").check()


def test_a_model_dir_that_does_not_fit_is_one_sentence(monkeypatch, models, folders, capsys):
    _pictures(models, folders)
    monkeypatch.chdir(folders)
    for words, told in (
        (("--model-dir", "nowhere"), "is no folder"),
        (("--model-dir", "vit", "--quality", "surrogate"), "leave one of them out"),
        (("--model-dir", "vit", "--eval-data", "retrieval.jsonl", "--task", "retrieval"), "its task is classification, not retrieval"),
    ):
        assert main(["search", *words, "--out", "wrong"]) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--quality", "surrogate"), "eval-data belongs to --quality measured"),
        (("--task", "retrieve"), "did you mean 'retrieval'"),
        (("--eval-data", "nowhere.jsonl"), "cannot be read"),
        (("--quality", "measured:nowhere"), "does not exist"),
        (("--workload", "bert"), "cannot be cut to"),
    ],
)
def test_wrong_words_end_in_one_sentence(monkeypatch, folders, capsys, more, told):
    assert _search(monkeypatch, folders, "wrong", *more) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dse: ") and told in last
