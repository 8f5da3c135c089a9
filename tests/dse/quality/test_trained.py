"""Small trained models: the recipe, and what the shipped tables say by brute force."""

import csv
from importlib import resources

import numpy as np
import pytest
from scipy.optimize import lsq_linear

import workloads
from dse.cli import main
from dse.errors import DseError, UsageError
from dse.quality.evaluators import parse
from dse.quality.records import SUPPORT
from dse.quality.trained import data, quality, surrogate, training
from dse.quality.trained.training import schedule, shifted


@pytest.mark.parametrize("task", surrogate.TASKS)
def test_left_out_error_is_that_of_fits_without_each_model(task):
    table = surrogate.load(task)
    design, target = table._design(table.knobs), np.log(table.cross_entropy)
    errors = []
    for i in range(len(target)):
        keep = np.arange(len(target)) != i
        errors.append(target[i] - design[i] @ np.linalg.lstsq(design[keep], target[keep], rcond=None)[0])
    assert table.left_out.logarithms == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-8)
    assert len(target) >= 20 and np.linalg.matrix_rank(design) == design.shape[1]


def test_what_the_tables_tell_apart_lowers_the_loss_and_few_bits_raise_it():
    for task in surrogate.TASKS:
        table = surrogate.load(task)
        for knob in ("layers", "hidden") if task not in training.PATCH else ("heads",):  # pictures do not tell the first two apart
            effect, half = table.elasticities()[knob]
            assert effect + half < 0.0, (task, knob)
        bits = table.bits()
        assert abs(bits[8][0]) < 0.01 < bits[3][0] and bits[4][0] < bits[3][0]


def test_schedule_and_shift():
    factors = [schedule(step, 300) for step in range(300)]
    assert factors[0] == pytest.approx(1 / 20) and max(factors) == 1.0 and factors[-1] == pytest.approx(0.02)
    pictures = np.arange(28 * 28, dtype=np.float32).reshape(1, 28, 28) + 1
    moved = shifted(pictures, np.random.default_rng(0))
    assert moved.shape == pictures.shape and set(moved[moved > 0].tolist()) <= set(pictures.flatten().tolist())
    assert (moved > 0).sum() >= 26 * 26


def test_a_model_of_digits_learns(models):
    pytest.importorskip("sklearn")
    from dse.quality.trained import data, training

    digits = data.load("digits")
    found = training.train(digits, {"layers": 1, "hidden": 32, "heads": 2, "ffn": 64}, steps=60)
    assert found.cross_entropy < np.log(10) - 0.3 and found.cross_entropy_se > 0
    assert set(found.curve) == {0.25, 0.5, 1.0}
    again = training.train(digits, {"layers": 1, "hidden": 32, "heads": 2, "ffn": 64}, steps=60)
    assert again.cross_entropy == found.cross_entropy


def test_series_are_read_binned_and_masked(tmp_path):
    file = tmp_path / "Waves_TRAIN.ts"
    file.write_text("# of two\n@problemName Waves\n@classLabel true a b\n@Data\n0.5,-1.25,2e0:a\n\n-9,0,3:b\n", encoding="utf-8")
    assert data.read_ts(file).tolist() == [[0.5, -1.25, 2.0], [-9.0, 0.0, 3.0]]
    for text in ("@data\n1,2:a\n1:b\n", "@data\n1,?:a\n", "@data\n", "1,2:a\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DseError, match=r"Waves_TRAIN\.ts is no file of series of one dimension and one length"):
            data.read_ts(file)
    # 32 bins of 5/32 standard deviations from -2.5, the outer ones open.
    assert data.bins_of(np.array([-2.5, -2.35, -2.3, 0.0, 2.49, 2.5, 40.0, -40.0])).tolist() == [0, 0, 1, 16, 31, 31, 31, 0]
    windows = np.arange(200 * 32).reshape(200, 32) % 32
    inputs, labels = data.masked(windows, np.random.default_rng(0))
    hidden = labels != data.IGNORED
    assert (labels[hidden] == windows[hidden]).all() and (inputs[hidden] == 32).all() and (inputs[~hidden] == windows[~hidden]).all()
    runs = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    for row, steps in zip(hidden, runs, strict=True):  # two runs of four, which may touch or overlap
        assert 4 <= row.sum() <= 8 and 1 <= (steps == 1).sum() <= 2
        assert (np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1) >= 4).all()


def test_an_encoder_of_series_learns():
    """Level series of four levels: what is hidden stands in the rest of the window, and by itself has an entropy of ln 4."""
    windows = np.repeat(np.tile([4, 12, 20, 28], 30)[:, None], 32, axis=1)
    inputs, labels = data.masked(windows[100:], np.random.default_rng(1))
    levels = data.TaskData("series", "series", 32, windows[:100], windows[:100], inputs, labels, "levels")
    knobs = {"layers": 1, "hidden": 32, "heads": 2, "ffn": 32}
    found = training.train(levels, knobs, steps=30, batch=16)
    assert found.cross_entropy < 0.5 * np.log(4)
    assert training.train(levels, knobs, steps=30, batch=16).cross_entropy == found.cross_entropy
    with pytest.raises(UsageError, match="kv_heads is 1 and an encoder has as many as heads, 2"):
        training.build(levels, {"heads": 2, "kv_heads": 1})


@pytest.mark.slow
def test_the_series_of_the_package_are_those_of_the_table():
    pytest.importorskip("aeon")
    found = data.load("series")
    assert found.test_inputs.shape[1] == 32 and surrogate.load("series").source.endswith(
        f"{len(found.train_inputs)} training and {len(found.test_inputs)} test items"
    )
    known = {tuple(window) for window in found.train_inputs.tolist()}
    whole = np.where(found.test_labels == data.IGNORED, found.test_inputs, found.test_labels)
    assert not any(tuple(window) in known for window in whole.tolist())


@pytest.mark.parametrize("task", surrogate.TASKS)
def test_the_surrogate_is_monotone_and_its_error_that_of_refits(task):
    table = surrogate.load(task)
    rng = np.random.default_rng(0)
    models = {name: rng.choice(column, 200) for name, column in table.knobs.items()}
    for name in table.names:  # turned up alone, no knob makes a model worse
        more = {**models, name: models[name] * 1.5}
        assert (table.predict(more) <= table.predict(models) + 1e-12).all(), name
    # Bounded least squares by another routine, with each model left out.
    design, target = table._monotone(table.knobs), np.log(table.cross_entropy)
    design = np.delete(design, 1, axis=1)  # one intercept of either sign
    low = np.where(np.arange(design.shape[1]) == 0, -np.inf, 0.0)
    missed = []
    for i in range(len(target)):
        rest = np.arange(len(target)) != i
        fit = lsq_linear(design[rest], target[rest], bounds=(low, np.inf), method="bvls", tol=1e-12)
        missed.append(target[i] - design[i] @ fit.x)
    assert table.left_out.surrogate == pytest.approx(np.sqrt(np.mean(np.square(missed))), rel=1e-5)
    assert table.left_out.surrogate < table.left_out.logarithms < table.left_out.parameters


def test_a_measured_model_keeps_its_figure_and_others_carry_the_surrogates_error():
    """Of the shipped row 2,64,4,16,4,128 at 4 bits (three seeds), by hand; of a model between the rows the surrogate."""
    text = resources.files("dse").joinpath("data/trained_mnist.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in text if not line.startswith("#")))
    base = {"layers": 2, "hidden": 64, "heads": 4, "head_dim": 16, "ffn": 128, "weight_bits": 4}
    own = [float(r["cross_entropy"]) for r in rows if all(int(r[k]) == v for k, v in base.items())]
    assert len(own) == 3
    ask = parse("trained:mnist-vit", workload="mnist-vit")
    found = ask(base, fidelity=1.0, seed=0)["quality"]
    loss, deviation = np.mean(own), surrogate.load("mnist").seed_deviation
    assert found.mean == pytest.approx(100 * np.exp(-loss)) and found.se == pytest.approx(found.mean * loss * deviation / np.sqrt(3))
    between = ask({**base, "hidden": 80}, fidelity=1.0, seed=0)["quality"]
    assert between.se > 1.5 * found.se and abs(between.mean - found.mean) < 4 * between.se


def test_what_lies_outside_a_table_is_marked_and_refused(tmp_path):
    known = quality.trained_quality("gloss-decoder")
    inside = {"layers": 2, "hidden": 64, "heads": 4, "head_dim": 16, "kv_heads": 2, "ffn": 96, "weight_bits": 8}
    columns = {name: np.array([value, value]) for name, value in inside.items()}
    columns["hidden"] = np.array([64, 512])
    assert [SUPPORT[code] for code in known.predict(**columns).support] == ["interpolated", "extrapolated"]
    ask = parse("trained:gloss", workload="gloss-decoder")
    with pytest.raises(DseError, match="hidden is 512 and the table of gloss holds 32 to 96; nearest is 96"):
        ask({**inside, "hidden": 512}, fidelity=1.0, seed=0)
    with pytest.raises(DseError, match="weight_bits is 2"):
        ask({**inside, "weight_bits": 2}, fidelity=1.0, seed=0)
    with pytest.raises(UsageError, match="knob 'ffn' is missing"):
        ask({name: value for name, value in inside.items() if name != "ffn"}, fidelity=1.0, seed=0)
    with pytest.raises(UsageError, match="knob 'experts' is none of the table"):
        ask({**inside, "experts": 2}, fidelity=1.0, seed=0)
    with pytest.raises(DseError, match="did you mean 'mnist-vit'"):
        parse("trained:mnist-vti", workload="mnist-vit")


def test_a_search_by_a_table_says_what_was_measured(tmp_path, capsys):
    words = ["search", "--workload", "mnist-vit", "--quality", "trained:mnist-vit", "--objective", "carbon", "--budget", "12"]
    words += [
        "--set",
        "depth=16",
        "--set",
        "cores=1",
        "--set",
        "l2_kib=64",
        "--set",
        "glb_mib=2",
        "--set",
        "layers=2",
        "--set",
        "hidden=64",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "pareto.csv").read_text(encoding="utf-8").splitlines()))
    table = surrogate.load("mnist").knobs
    held = set(zip(*(table[n].astype(int).tolist() for n in ("layers", "hidden", "heads", "head_dim", "ffn")), strict=True))
    assert {row["quality_support"] for row in rows} <= {"measured", "interpolated"}
    for row in rows:
        key = tuple(int(row[n]) for n in ("layers", "hidden", "heads", "head_dim", "ffn"))
        assert (row["quality_support"] == "measured") == (key in held)
    assert main([*words[:2], "minilm", *words[3:9], "--out", str(tmp_path / "none")]) == 2
    assert "the space holds no model that trained:mnist-vit supports" in capsys.readouterr().err


@pytest.mark.parametrize("workload", quality.WORKLOADS)
def test_the_workload_of_a_table_is_the_model_that_was_trained(workload):
    task = quality.WORKLOADS[workload]
    table = surrogate.load(task)
    family = workloads.load(workload)
    for i in (0, 5, 11):
        knobs = {n: int(table.knobs[n][i]) for n in surrogate.KNOBS if n != "kv_heads" or n in family.knobs}
        model = _untrained(task, {**knobs, "kv_heads": int(table.knobs["kv_heads"][i])})
        assert family.build(**knobs).parameter_count() == sum(p.numel() for p in model.parameters())
    grid = family.model_grid()
    found = quality.trained_quality(task).predict(**grid)
    assert (found.support != SUPPORT.index("extrapolated")).mean() > 0.9  # the default space is what the table spans


def _untrained(task, knobs):
    """A model of the recipe without the data that it was trained on."""
    kind, *size = {
        "mnist": ("vision", 10, 28),
        "digits": ("vision", 10, 8),
        "series": ("series", 32, 32),
        "cmudict": ("language", 68, 17),
        "gloss": ("language", 49, 64),
    }[task]
    nothing = np.zeros((1, size[1]), dtype=np.int64)
    return training.build(data.TaskData(task, kind, size[0], nothing, nothing, nothing, nothing, ""), knobs)
