"""A design whose model was measured is exported as that model: its checkpoint is read back, and its graph has its weights."""

import pytest
import transformers

import dse
from dse.exporters import export
from dse.quality import checkpoint
from dse.quality.pruning.calibration import calibrate
from dse.quality.pruning.prune import prune
from dse.storage.run_folder import load

torch = pytest.importorskip("torch")

CHIP = {"cores": 1, "width": 64, "depth": 16, "l2_kib": 64, "l2_words_per_cycle": 64, "glb_mib": 2}


@pytest.mark.slow
def test_the_graph_of_a_design_is_that_of_the_checkpoint_in_its_run(models, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    source = models._made(
        lambda config: transformers.BertModel(config, add_pooling_layer=False),
        transformers.BertConfig(**models.SIZES, vocab_size=60, max_position_embeddings=40),
    )
    # Three heads of 8 in a width of 32: an encoder that transformers alone cannot build.
    model = prune(source, {"heads": 3}, calibrate(source, models.batches(source))).model
    dse.search("bert", out=tmp_path / "run", fixed={"layers": 2, "hidden": 128, "sequence": 9, **CHIP})
    checkpoint.save(model, tmp_path / "run" / "designs" / "1" / "model")
    again = checkpoint.load(tmp_path / "run" / "designs" / "1" / "model")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    export(load(tmp_path / "run"), 1, "onnx", tmp_path / "out")
    run = ort.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    batch = {name: value[1:2] for name, value in models.batches(model, 1, seed=8)[0].items()}
    mine = torch.from_numpy(run.run(None, {name: value.numpy() for name, value in batch.items()})[0])[0]
    torch.testing.assert_close(mine, models.output(model, batch), rtol=1e-4, atol=1e-4)
    assert "measured for this design" in (tmp_path / "out" / "EXPORT-NOTES.md").read_text(encoding="utf-8")
