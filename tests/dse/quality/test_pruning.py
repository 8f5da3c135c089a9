"""Structured pruning: exact dimensions, tensors that equal their source, and models that equal a masked source."""

import json

import numpy as np
import pytest
import torch
import transformers

from dse.errors import DseError, UsageError
from dse.quality import checkpoint
from dse.quality.pruning import onnx_file, rotation
from dse.quality.pruning.calibration import Moments, calibrate, input_moments
from dse.quality.pruning.layout import axes_of, layout_of
from dse.quality.pruning.prune import cut, prune, refitted
from dse.quality.pruning.select import Selection, Shape, select, select_heads, select_tokens, top

KINDS = ("bert", "roberta", "llama", "qwen2", "qwen3", "vit")
HALF = {"layers": 2, "heads": 2, "ffn": 20}


def plain(models, model, knobs, **more):
    """Pruned by slicing alone."""
    return prune(model, knobs, calibrate(model, models.batches(model)), refit=False, rotate=False, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kept_tensor_equals_its_source(models, kind):
    model = models.ALL[kind]()
    source = model.state_dict()
    found = plain(models, model, {**HALF, "hidden": 20})
    kept, head_dim = found.selection, Shape.of(model).head_dim
    layout = layout_of(model.config.model_type)
    start = ("" if model is model.base_model else f"{model.base_model_prefix}.") + f"{layout.layers}."
    assert not found.changed
    for name, tensor in found.model.state_dict().items():
        old, new = name, None
        if name.startswith(start):
            number, _, rest = name.removeprefix(start).partition(".")
            new = int(number)
            old = f"{start}{kept.layers[new]}.{rest}"
        expected = source[old]
        # The rule of the documentation, dimension by dimension, by sizes that differ from each other: 32 hidden, 48 ffn.
        for dimension, size in enumerate(expected.shape):
            if size == tensor.shape[dimension]:
                continue
            if size == 48:
                index = kept.ffn[new]
            elif any(part in name for part in ("query", "q_proj")) and dimension == 0:
                index = [h * head_dim + i for h in kept.heads[new] for i in range(head_dim)]
            elif any(part in name for part in ("key", "value", "k_proj", "v_proj")) and dimension == 0:
                index = [h * head_dim + i for h in kept.kv_heads[new] for i in range(head_dim)]
            elif any(part in name for part in ("attention.output.dense.weight", "o_proj.weight")) and dimension == 1:
                index = [h * head_dim + i for h in kept.heads[new] for i in range(head_dim)]
            else:
                index = kept.hidden
            expected = expected.index_select(dimension, torch.tensor(index))
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("kind", KINDS)
def test_dimensions_are_exact_and_the_checkpoint_loads(models, kind, tmp_path):
    model = models.ALL[kind]()
    found = plain(models, model, HALF)
    assert Shape.of(found.model) == found.shape
    assert (found.shape.layers, found.shape.heads, found.shape.ffn, found.shape.head_dim) == (2, 2, 20, Shape.of(model).head_dim)
    checkpoint.save(found.model, tmp_path / "m", record=found.record())
    again = checkpoint.load(tmp_path / "m")
    batch = models.batches(model, 1, seed=5)[0]
    assert torch.equal(models.output(again, batch), models.output(found.model, batch))
    assert json.loads((tmp_path / "m" / "pruning.json").read_text())["kept"]["layers"] == found.selection.layers


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_heads_and_units_are_those_of_a_masked_source(models, kind):
    """Cutting a head or a unit is the same function as the whole model with its output's column at zero."""
    model = models.ALL[kind]()
    found = plain(models, model, {"heads": 2, "ffn": 20})
    layout, head_dim = layout_of(model.config.model_type), Shape.of(model).head_dim
    for i, layer in enumerate(model.base_model.get_submodule(layout.layers)):
        gone = [c for c in range(4 * head_dim) if c // head_dim not in found.selection.heads[i]]
        dead = [c for c in range(48) if c not in found.selection.ffn[i]]
        with torch.no_grad():
            layer.get_submodule(layout.attention_out).weight[:, gone] = 0.0
            layer.get_submodule(layout.ffn_out).weight[:, dead] = 0.0
    for batch in models.batches(model, 2, seed=9):
        # Sums of other lengths round otherwise: float32.
        torch.testing.assert_close(models.output(found.model, batch), models.output(model, batch), rtol=2e-5, atol=2e-5)


def test_key_value_groups_stay_whole_and_thin_out_evenly(models):
    model = models.llama()  # 4 query heads in 2 groups
    whole = plain(models, model, {"heads": 2})
    assert (whole.shape.heads, whole.shape.kv_heads) == (2, 1)
    assert whole.selection.heads[0] == [2 * whole.selection.kv_heads[0][0], 2 * whole.selection.kv_heads[0][0] + 1]
    thin = plain(models, model, {"heads": 2, "kv_heads": 2})
    assert (thin.shape.heads, thin.shape.kv_heads) == (2, 2)
    assert [h // 2 for h in thin.selection.heads[0]] == [0, 1]  # one of each group
    assert thin.model.config.num_key_value_heads == 2
    with pytest.raises(UsageError, match=r"heads is 3 .* stay together; nearest is 4"):
        Shape.of(model).target({"heads": 3})
    with pytest.raises(UsageError, match="whole number of query heads"):
        Shape.of(model).target({"heads": 3, "kv_heads": 2})


def test_what_goes_is_what_matters_least(models):
    model = models.bert()
    batch = models.batches(model)
    found = plain(models, model, {"heads": 2, "ffn": 20})
    # Brute force for the first layer: mean squared contribution of each part, from the tensors that reach the output projection.
    layer = model.encoder.layer[0]
    seen = {}
    hooks = [
        layer.attention.output.dense.register_forward_pre_hook(lambda _, a: seen.setdefault("head", []).append(a[0])),
        layer.output.dense.register_forward_pre_hook(lambda _, a: seen.setdefault("ffn", []).append(a[0])),
    ]
    with torch.no_grad():
        for one in batch:
            model(**one)
    for hook in hooks:
        hook.remove()
    real = torch.cat([one["attention_mask"].flatten() for one in batch]).bool()
    head = torch.cat([x.flatten(0, 1) for x in seen["head"]])[real].double()
    unit = torch.cat([x.flatten(0, 1) for x in seen["ffn"]])[real].double()
    heads = [sum(float((head[:, c] ** 2).mean() * layer.attention.output.dense.weight[:, c].detach().double().pow(2).sum())
                 for c in range(8 * h, 8 * h + 8)) for h in range(4)]  # fmt: skip
    units = [float((unit[:, c] ** 2).mean() * layer.output.dense.weight[:, c].detach().double().pow(2).sum()) for c in range(48)]
    assert found.selection.heads[0] == sorted(np.argsort(heads)[-2:].tolist())
    assert found.selection.ffn[0] == sorted(np.argsort(units)[-20:].tolist())


def test_the_layer_that_changes_least_goes(models):
    model = models.llama()
    with torch.no_grad():  # the middle layer hands its input on
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = plain(models, model, {"layers": 2})
    assert found.selection.layers == [0, 2]
    batch = models.batches(model, 1, seed=3)[0]
    torch.testing.assert_close(models.output(found.model, batch), models.output(model, batch))


def test_vocabulary_keeps_the_frequent_tokens_and_those_that_must_stay(models):
    assert select_tokens([5, 0, 3, 9, 3], 3, (1,)) == [0, 1, 3]
    model = models.llama()
    found = plain(models, model, {"vocabulary": 30}, keep_tokens=(0, 1, 2))
    assert found.model.config.vocab_size == 30 and set(found.selection.tokens) >= {0, 1, 2}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(found.model.state_dict()[name], model.state_dict()[name][found.selection.tokens])


def test_selection_helpers_break_ties_to_the_lower_index():
    assert top([1.0, 2.0, 2.0, 0.0], 2) == [1, 2]
    assert top([1.0, 1.0, 1.0], 2) == [0, 1]
    own = Shape(1, 8, 4, 2, 2, 8, 10)
    assert select_heads([1.0, 9.0, 3.0, 4.0], own, own.target({"heads": 2})) == ([0, 1], [0])
    assert select_heads([1.0, 9.0, 3.0, 4.0], own, own.target({"heads": 2, "kv_heads": 2})) == ([1, 3], [0, 1])


def test_refit_is_the_least_squares_fit():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    rows[:, 3] = rows[:, 0] - 0.5 * rows[:, 1] + 0.1 * rows[:, 3] + 1.0
    weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    moments = Moments.none(6)
    moments.add(rows[:150])
    moments.add(rows[150:])
    kept = [0, 1, 2, 4]
    fitted, shift = refitted(weight, moments, kept, with_bias=True, ridge=0.0)
    design = np.column_stack([rows[:, kept].numpy(), np.ones(400)])
    wanted = np.linalg.lstsq(design, (rows @ weight.T).numpy(), rcond=None)[0]
    np.testing.assert_allclose(fitted.numpy(), wanted[:-1].T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(shift.numpy(), wanted[-1], rtol=1e-8, atol=1e-10)
    loose, _ = refitted(weight, moments, kept, with_bias=True, ridge=1e9)
    torch.testing.assert_close(loose, weight[:, kept], rtol=1e-5, atol=1e-6)  # an infinite ridge keeps the slice


@pytest.mark.parametrize("kind", KINDS)
def test_refit_changes_the_projections_alone_and_brings_the_output_nearer(models, kind):
    model = models.ALL[kind]()
    batch = models.batches(model, 12)
    calibration = calibrate(model, batch)
    sliced, fitted = (prune(model, {"ffn": 24}, calibration, refit=r) for r in (False, True))
    for name, tensor in fitted.model.state_dict().items():
        assert torch.equal(tensor, sliced.model.state_dict()[name]) != (name in fitted.changed), name
    assert all("output.dense" in n or "mlp.down_proj" in n or "mlp.fc2" in n for n in fitted.changed)
    error = [sum(float((models.output(p.model, b) - models.output(model, b)).pow(2).sum()) for b in batch) for p in (sliced, fitted)]
    assert error[1] < error[0]


def test_a_rotation_of_the_whole_width_changes_nothing(models):
    """With norms before the blocks and no mean to subtract a full rotation is exact."""
    for model in (models.llama(), models.qwen3(), models.qwen2(), models.llama(tied=True)):
        calibration = calibrate(model, models.batches(model), hidden=True)
        prefix, layout = "model.", layout_of(model.config.model_type)
        found = rotation.rotate(dict(model.state_dict()), layout, prefix, [0, 1, 2], calibration, 32)
        torch.testing.assert_close(found.map @ found.map.T, torch.eye(32, dtype=torch.float64))
        model_again = checkpoint.fill(checkpoint.build(_untied(model.config), type(model)), found.tensors, "rotated")
        batch = models.batches(model, 1, seed=4)[0]
        torch.testing.assert_close(models.output(model_again, batch), models.output(model, batch), rtol=2e-4, atol=2e-4)


def _untied(config):
    import copy

    settings = copy.deepcopy(config)
    settings.tie_word_embeddings = False
    return settings


@pytest.mark.parametrize("kind", ["bert", "vit", "classes of every token"])
def test_a_rotation_loses_nothing_that_the_stream_does_not_hold(models, kind):
    """A residual stream that lies in 19 directions orthogonal to the ones is carried by a width of 20 whole."""
    if kind in models.ALL:
        model = models.ALL[kind]()
    else:
        model = models.bert(transformers.BertForTokenClassification, num_labels=5)
    layout = layout_of(model.config.model_type)
    basis = torch.randn(32, 19, generator=torch.Generator().manual_seed(2))
    basis = torch.linalg.qr(basis - basis.mean(0)).Q  # columns that sum to 0, along no axis
    project = basis @ basis.T
    with torch.no_grad():
        for name, value in model.named_parameters():
            axes, _ = axes_of(layout, name, "" if model is model.base_model else f"{model.base_model_prefix}.", value.ndim)
            for dimension, axis in enumerate(axes):
                if axis == "out":
                    value.copy_((value.movedim(dimension, -1) @ project).movedim(-1, dimension))
            if axes == ("norm",):  # slope one: it would turn the stream out of its subspace
                value.fill_(1.0 if name.endswith("weight") else 0.0)
    batch = models.batches(model, 6)
    # (1 token of padding less: every token counts in the calibration)
    calibration = calibrate(model, batch, hidden=True)
    found = prune(model, {"hidden": 20}, calibration)
    assert found.shape.hidden == 20 and found.turn.shape == (20, 32)
    torch.testing.assert_close(found.turn.sum(1), torch.zeros(20, dtype=torch.float64), atol=1e-6, rtol=0)
    for one in batch:
        mine, theirs = models.output(found.model, one), models.output(model, one)
        if kind == "bert":
            mine, theirs = mine.double() @ found.turn, theirs.double()
        # The subspace comes from moments: the last directions are known to the root of the rounding.
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)


def test_rotation_helpers():
    basis = rotation.ones_complement(7)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(basis.sum(0), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    rows = torch.randn(50, 5, dtype=torch.float64)
    slope, intercept = rotation.fitted_norm(rows, rotation.normalised(rows, False) * 2.0 + 1.0, rms=False)
    torch.testing.assert_close(slope, torch.full((5,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(intercept, torch.ones(5, dtype=torch.float64))


def test_moments_of_inputs_leave_padding_out(models):
    model = models.bert()
    batch = models.batches(model, 2)
    found = input_moments(model, ["encoder.layer.0.attention.self.query"], batch)["encoder.layer.0.attention.self.query"]
    rows = []
    handle = model.encoder.layer[0].attention.self.query.register_forward_pre_hook(lambda _, a: rows.append(a[0]))
    with torch.no_grad():
        for one in batch:
            model(**one)
    handle.remove()
    real = torch.cat([r[b["attention_mask"].bool()] for r, b in zip(rows, batch, strict=True)]).double()
    torch.testing.assert_close(found, real.T @ real / len(real), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_pruned_is_one_sentence(models):
    model = models.bert()
    own = Shape.of(model)
    with pytest.raises(UsageError, match="ffn is 49; pruning needs 1 to 48; nearest is 48"):
        own.target({"ffn": 49})
    with pytest.raises(UsageError, match="did you mean 'heads'"):
        own.target({"head": 2})
    with pytest.raises(UsageError, match="vocabulary is 10 and this model has none"):
        Shape.of(models.vit()).target({"vocabulary": 10})
    with pytest.raises(UsageError, match="calibration set"):
        select(model, own.target({"heads": 2}), None)
    with pytest.raises(DseError, match="gpt2"):
        layout_of("gpt2")
    with pytest.raises(UsageError, match="rotation needs"):
        cut(model, own.target({"hidden": 20}), Selection([0, 1, 2], [[0, 1, 2, 3]] * 3, [[0, 1, 2, 3]] * 3, [list(range(48))] * 3), None)
    with pytest.raises(UsageError, match="none that pruning knows"):
        axes_of(layout_of("bert"), "encoder.layer.0.extra.weight", "", 2)


@pytest.mark.parametrize("kind", ["bert", "llama", "vit"])
def test_the_graph_runs_in_onnxruntime_and_equals_torch(models, kind, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    model = models.ALL[kind]()
    found = prune(model, {**HALF, "hidden": 24}, calibrate(model, models.batches(model), hidden=True))
    file = onnx_file.write(found.model, tmp_path / "m.onnx", sequence=9, batch=4)
    batch = models.batches(model, 1, seed=8)[0]
    run = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    mine = torch.from_numpy(run.run(None, {name: value.numpy() for name, value in batch.items()})[0])
    if "attention_mask" in batch:
        mine = mine[batch["attention_mask"].bool()]
    torch.testing.assert_close(mine, models.output(found.model, batch), rtol=1e-4, atol=1e-4)
