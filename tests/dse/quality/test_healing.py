"""Healing by distillation: it brings a pruned model back towards its source, whatever weighs the losses."""

import numpy as np
import pytest
import torch

from dse.errors import DseError, UsageError
from dse.quality.healing import Healing, Teacher, heal, run
from dse.quality.pruning.calibration import calibrate
from dse.quality.pruning.prune import prune
from dse.strategies.amoo.weights import camoo_weights, pamoo_weights

THREE = ("hidden", "output", "relation")


def start(models, kind="bert", **knobs):
    model = models.ALL[kind]()
    batches = models.batches(model, 6)
    teacher = Teacher(model, batches, embeds=kind == "bert")
    return model, teacher, prune(model, knobs or {"layers": 2, "ffn": 24}, calibrate(model, batches, hidden=True))


def error(models, model, pruned, batches):
    total = 0.0
    for one in batches:
        mine, theirs = models.output(pruned.model, one).double(), models.output(model, one).double()
        total += float((mine - (theirs if pruned.turn is None or mine.shape == theirs.shape else theirs @ pruned.turn.T)).pow(2).mean())
    return total


@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_healing_brings_the_model_nearer(models, kind):
    model, teacher, pruned = start(models, kind)
    before = error(models, model, pruned, teacher.batches)
    healed = heal(pruned, teacher, Healing(steps=40, rate=3e-3))
    assert healed.steps == 40 and healed.cpu_s > 0
    assert error(models, model, pruned, teacher.batches) < 0.7 * before
    assert healed.curve[0][1] == {"hidden": 1.0, "output": 1.0}
    assert healed.curve[-1][1]["hidden"] < 0.9


def test_a_rotated_width_is_healed_through_its_map(models):
    model, teacher, pruned = start(models, hidden=24)
    before = error(models, model, pruned, teacher.batches)
    heal(pruned, teacher, Healing(steps=40, rate=3e-3))
    assert error(models, model, pruned, teacher.batches) < 0.8 * before


def test_a_student_that_is_its_teacher_has_nothing_to_learn(models):
    _, teacher, pruned = start(models, ffn=48)
    healed = heal(pruned, teacher, Healing(steps=1, losses=THREE))
    wanted = teacher.views(0, pruned, True)
    states, output, relations = run(pruned.model, teacher.batches[0], embeds=True, relation=True)
    assert len(states) == 4 and len(relations) == len(wanted.relations) == 3
    assert healed.steps == 0  # nothing is left to learn
    torch.testing.assert_close(states[-1], wanted.hidden[-1], atol=2e-2, rtol=2e-2)  # the teacher's states are kept in half precision
    torch.testing.assert_close(output, wanted.output, atol=2e-2, rtol=2e-2)


def test_a_layer_learns_what_the_next_kept_layer_was_given(models):
    """With layers 0 and 2 kept, the student's first layer must hand on what the source's layer 2 was handed."""
    model, teacher, _ = start(models)
    with torch.no_grad():
        model.encoder.layer[1].attention.output.dense.weight.zero_()
        model.encoder.layer[1].output.dense.weight.zero_()
    pruned = prune(model, {"layers": 2}, calibrate(model, teacher.batches))
    kept = pruned.selection.layers
    views = Teacher(model, teacher.batches, embeds=True).views(0, pruned, False)
    seen = []
    handle = model.encoder.layer[kept[1]].register_forward_pre_hook(
        lambda _, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**teacher.batches[0])
    handle.remove()
    torch.testing.assert_close(views.hidden[0], seen[0][teacher.batches[0]["attention_mask"].bool()], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("weigher", [{"weigh": pamoo_weights}, {"weigh_curvature": camoo_weights}])
def test_weights_of_aligned_losses_are_renewed_and_sum_to_one(models, weigher):
    model, teacher, pruned = start(models)
    before = error(models, model, pruned, teacher.batches)
    healed = heal(pruned, teacher, Healing(steps=30, rate=3e-3, losses=THREE, renew=10), **weigher)
    for _, _, weights in healed.curve:
        assert abs(sum(weights) - 1.0) < 1e-9 and min(weights) >= 0.0
    assert healed.curve[-1][2] != pytest.approx([1 / 3] * 3)
    assert error(models, model, pruned, teacher.batches) < before


def test_adapters_are_merged_and_leave_everything_else_alone(models):
    model, teacher, pruned = start(models)
    before = {name: value.clone() for name, value in pruned.model.state_dict().items()}
    whole = error(models, model, pruned, teacher.batches)
    heal(pruned, teacher, Healing(steps=40, rate=1e-2, lora_rank=4))
    assert error(models, model, pruned, teacher.batches) < whole
    for name, value in pruned.model.state_dict().items():
        inside = "encoder.layer" in name and name.endswith("weight") and "Norm" not in name
        assert torch.equal(value, before[name]) != inside, name
        if inside:
            assert int(torch.linalg.matrix_rank((value - before[name]).double(), rtol=1e-4)) <= 4


def test_the_same_seed_heals_the_same_and_another_does_not(models):
    results = []
    for seed in (0, 0, 1):
        _, teacher, pruned = start(models)
        heal(pruned, teacher, Healing(steps=5, seed=seed))
        results.append(torch.cat([v.flatten() for v in pruned.model.state_dict().values()]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_limits_and_wrong_settings(models):
    _, teacher, pruned = start(models)
    assert heal(pruned, teacher, Healing(steps=0)).steps == 0
    assert heal(pruned, teacher, Healing(steps=10**6, time_limit_s=0.3)).steps < 10**5
    with pytest.raises(DseError, match="did you mean 'hidden'"):
        Healing(losses=("hiden",))
    with pytest.raises(UsageError, match="rate is nan"):
        Healing(rate=float("nan"))
    with torch.no_grad():
        pruned.model.encoder.layer[0].output.dense.weight.fill_(np.inf)
    with pytest.raises(DseError, match="healing diverged at step 0"):
        heal(pruned, teacher, Healing(steps=2))
