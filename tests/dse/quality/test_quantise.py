"""Weight-only quantisation: bounds, brute force, and integers in the ONNX file."""

import numpy as np
import pytest
import torch

from dse.errors import UsageError
from dse.quality.model_evaluator import linear_layers
from dse.quality.pruning import onnx_file
from dse.quality.pruning.calibration import input_moments
from dse.quality.pruning.quantise import activation_aware, output_error, quantise_model, round_to_nearest


def weights(out=6, columns=8, seed=0):
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 4])
def test_round_to_nearest_is_the_nearest_code_within_half_a_step(bits, group):
    weight = weights()
    found = round_to_nearest(weight, bits, group)
    top = 2 ** (bits - 1) - 1
    assert found.codes.dtype == torch.int8 and int(found.codes.abs().max()) == top
    assert bool(((found.weight() - weight).abs() <= found.error_bound() * (1 + 1e-6)).all())
    # Brute force: no other code of the range comes nearer.
    width = group or 8
    for row in range(6):
        for first in range(0, 8, width):
            block = weight[row, first : first + width]
            scale = float(block.abs().max()) / top
            for j, w in enumerate(block.tolist()):
                best = min(abs(code * scale - w) for code in range(-top, top + 1))
                assert abs(float(found.weight()[row, first + j]) - w) <= best + 1e-6


def test_more_bits_and_smaller_groups_never_err_more_in_sum():
    weight, identity = weights(16, 32, 3), torch.eye(32)
    errors = [output_error(weight, round_to_nearest(weight, b).weight(), identity) for b in (2, 3, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert round_to_nearest(weight, 4, 8).stored_bits == 16 * 32 * 4 + 16 * (16 * 4)


def test_a_channel_of_zeros_stays_zero():
    weight = weights()
    weight[2] = 0.0
    assert torch.equal(round_to_nearest(weight, 4).weight()[2], torch.zeros(8))


def test_activation_aware_errs_less_where_one_input_is_loud():
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(500, 16, generator=generator)
    inputs[:, 3] *= 30.0
    weight = weights(12, 16, 7)
    moment = (inputs.T @ inputs / 500).double()
    plain, aware = round_to_nearest(weight, 3), activation_aware(weight, moment, 3)
    errors = [float((inputs @ (weight - q.weight()).T).pow(2).sum(1).mean()) for q in (plain, aware)]
    assert errors[1] < 0.7 * errors[0]
    np.testing.assert_allclose([output_error(weight, q.weight(), moment) for q in (plain, aware)], errors, rtol=1e-4)
    quiet = torch.eye(16, dtype=torch.float64)
    assert output_error(weight, activation_aware(weight, quiet, 3).weight(), quiet) <= output_error(weight, plain.weight(), quiet) + 1e-9


def test_wrong_widths_are_told():
    with pytest.raises(UsageError, match=r"weight_bits is 5; .* nearest is 4"):
        round_to_nearest(weights(), 5)
    with pytest.raises(UsageError, match="group is 3 and a weight has 8 inputs"):
        round_to_nearest(weights(), 4, 3)


def test_linear_layers_are_those_of_the_transformer_layers(models):
    assert len(linear_layers(models.llama())) == 3 * 7
    assert len(linear_layers(models.bert())) == 3 * 6
    assert not any("lm_head" in name or "embed" in name for name in linear_layers(models.llama()))


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 16)])
def test_integers_in_the_graph_give_what_the_quantised_model_gives(models, kind, bits, group, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    import onnx

    model = models.ALL[kind]()
    done = quantise_model(model, linear_layers(model), bits, group=group)
    file = onnx_file.write(model, tmp_path / "m.onnx", sequence=9, batch=4, quantised=done)
    graph = onnx.load(str(file)).graph
    assert sum(node.op_type == "DequantizeLinear" for node in graph.node) == len(done)
    batch = models.batches(model, 1, seed=8)[0]
    options = ort.SessionOptions()
    # The runtime's own shortcut (activations rounded to 8 bits inside a product) is another approximation than ours: floats are asked for.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    found = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(
        None, {k: v.numpy() for k, v in batch.items()}
    )[0]
    mine = torch.from_numpy(found)[batch["attention_mask"].bool()]
    # Both hold the same integers and scales, so that the bound of the weights' error does not enter: 1e-4, as for floats.
    torch.testing.assert_close(mine, models.output(model, batch), rtol=1e-4, atol=1e-4)


def test_activation_aware_weights_of_a_model_are_plain_weights_again(models):
    model = models.bert()
    names = linear_layers(model)
    before = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    done = quantise_model(model, names, 4, group=16, moments=input_moments(model, names, models.batches(model)))
    for name in names:
        weight = model.get_submodule(name).weight.detach()
        assert torch.equal(weight, done[name].weight())
        assert bool(((weight - before[name]).abs() <= done[name].error_bound() * (1 + 1e-5)).all())
