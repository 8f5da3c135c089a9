"""Small trained models: the recipe, and what the shipped tables say by brute force."""

import numpy as np
import pytest

from dse.errors import DseError, UsageError
from dse.quality.trained import surrogate
from dse.quality.trained.training import schedule, shifted


@pytest.mark.parametrize("task", surrogate.TASKS)
def test_left_out_error_is_that_of_fits_without_each_model(task):
    table = surrogate.load(task)
    design, target = table._design(table.knobs), np.log(table.cross_entropy)
    errors = []
    for i in range(len(target)):
        keep = np.arange(len(target)) != i
        errors.append(target[i] - design[i] @ np.linalg.lstsq(design[keep], target[keep], rcond=None)[0])
    assert table.left_out()[0] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-8)
    assert len(target) >= 20 and np.linalg.matrix_rank(design) == design.shape[1]


def test_more_layers_and_width_lower_the_loss_and_few_bits_raise_it():
    for task in surrogate.TASKS:
        table = surrogate.load(task)
        for knob in ("layers", "hidden") if task != "mnist" else ():  # 1,500 test pictures do not tell these apart
            effect, half = table.elasticities()[knob]
            assert effect + half < 0.0, (task, knob)
        bits = table.bits()
        assert abs(bits[8][0]) < 0.01 < bits[3][0] and bits[4][0] < bits[3][0]


def test_what_lies_outside_the_table_is_refused():
    table = surrogate.load("cmudict")
    base = {"layers": 2, "hidden": 64, "heads": 4, "head_dim": 16, "kv_heads": 4, "ffn": 128}
    mean, error = table.predict(base)
    assert abs(np.log(mean / 0.44)) < 3 * error / mean
    with pytest.raises(UsageError, match="layers is 9 and the table of cmudict holds 1 to 4; nearest is 4"):
        table.predict({**base, "layers": 9})
    with pytest.raises(UsageError, match="'ffn' is missing"):
        table.predict({"layers": 2, "hidden": 64, "heads": 4, "head_dim": 16, "kv_heads": 4})
    with pytest.raises(DseError, match="did you mean 'mnist'"):
        surrogate.load("minst")


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
