"""Files to start from work as they stand, mean what they were made of, and name every field."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from carbon.analysis import estimate
from carbon.analysis.specification import KEYS
from carbon.device.device import Device
from dse.cli import main
from dse.errors import UsageError
from dse.evaluation import space_file
from dse.evaluation.one_design import evaluate
from dse.spaces import parameters, starters
from dse.spaces.hardware import load_path_or_name
from hw_models.accelerator.design import NUMBERS, Accelerator
from hw_models.devices import library
from hw_models.errors import HardwareError
from workloads import library as families


@pytest.mark.parametrize("name", ["edge22", "datacenter", "lookup", *library.names()])
def test_an_accelerator_is_read_back_as_the_one_it_was_made_of(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(starters.accelerator(name), encoding="utf-8")
    hardware = load_path_or_name(name, profile=None)
    assert Accelerator.from_toml(path) == hardware.accelerator(hardware.defaults)


def test_every_number_of_an_accelerator_says_its_range() -> None:
    text = starters.accelerator("h100")
    for line in text.splitlines():
        if re.match(r"\w+ = [\d.]", line):
            assert "# " in line, line
    assert "# needed: from 1 to 1e+06" in text  # cores
    assert len(re.findall("# (?:needed: )?from ", text)) >= len([n for n in NUMBERS if n in text])


def test_needed_are_the_fields_without_which_a_file_is_refused(tmp_path: Path) -> None:
    lines = starters.accelerator("edge22").splitlines()
    path = tmp_path / "short.toml"
    marked, refused = set(), set()
    for number, line in enumerate(lines):
        if not re.match(r"\w+ = ", line):
            continue
        path.write_text("\n".join(lines[:number] + lines[number + 1 :]), encoding="utf-8")
        marked |= {number} if "needed" in line and not line.startswith('kind = "sram"') else set()
        try:
            Accelerator.from_toml(path)
        except HardwareError:
            refused.add(number)
    assert marked == refused
    assert len(marked) == 7 + 3 * 4 + 1  # the chip, three levels with their name, size and two bandwidths, the kind of the DRAM


def test_a_space_as_written_is_the_template_around_the_models_own_size(tmp_path: Path) -> None:
    found = parameters.parse(starters.space("bert", "edge22"), where="space")
    own = {p.name: p.values for p in found.parameters if p.role == "model"}
    assert own == {"layers": (6, 12), "hidden": (384, 576, 768), "heads": (6, 9, 12), "ffn": (1536, 2304, 3072)}
    knobs = {p.name: p.values for p in found.parameters if p.role == "hardware"}
    assert knobs == load_path_or_name("edge22", profile=None).knobs


def sweep(text: str, workload: str) -> list[dict[str, int]]:
    """The models that a space file stands for."""
    grid, _ = space_file.model_grid(text, "mine.toml", families.load(workload))
    return [dict(zip(grid, row, strict=True)) for row in zip(*(column.tolist() for column in grid.values()), strict=True)]


@pytest.mark.parametrize("workload", ["bert", "llama3-8b", "gpt2-xl", "music", "vit-b16", "t5-small", "mixtral-8x7b", "minilm"])
def test_every_model_of_a_space_as_written_has_the_proportions_of_its_workload(workload: str) -> None:
    text, own = starters.space(workload), families.load(workload).dimensions
    models = sweep(text, workload)
    assert len(models) >= 2 and own["hidden"] == max(model["hidden"] for model in models)
    for model in models:
        for name in {"heads", "ffn"} & model.keys() & own.keys():  # as fractions, in whole numbers
            assert model[name] * int(own["hidden"]) == int(own[name]) * model["hidden"]
        if "kv_heads" in own:
            assert model["heads"] * int(own["kv_heads"]) == model["kv_heads"] * int(own["heads"])


def test_a_width_of_ones_own_takes_the_heads_and_the_network_that_belong_to_it() -> None:
    text = re.sub(r"values = \[384, 576, 768\]", "values = [500, 512]", starters.space("bert"))
    found = [(model["hidden"], model["heads"], model["ffn"]) for model in sweep(text, "bert")]
    assert found == [(512, 8, 2048)] * 2  # for each of two depths; 500 has no whole number of heads of 64
    assert "proportions of bert-base (ffn and heads)" in text
    assert starters.space("resnet-50").count('role = "model"') == 0  # it has no width to follow


def test_settings_of_a_space_are_a_hash_away() -> None:
    text = starters.space("bert", "edge22")
    widened = re.sub(r"^# (\[parameters\.node_nm\].*\n)# (values = .*)$", r"\1\2", text, flags=re.M)
    assert parameters.parse(widened, where="space").parameter("node_nm").values == (22.0,)


def test_a_device_has_no_knobs_to_list() -> None:
    with pytest.raises(UsageError, match="dse init accelerator --from h100"):
        starters.space("bert", "h100")


def test_the_carbon_file_names_every_key_and_is_an_estimate(tmp_path: Path) -> None:
    text = starters.carbon()
    path = tmp_path / "server.toml"
    path.write_text(text, encoding="utf-8")
    answer = estimate.estimate(estimate.load(str(path)))
    assert {part.split(".")[0] for part in answer.embodied_parts} == {"accelerator", "host"}
    for name in (field.name for field in dataclasses.fields(Device)):
        assert re.search(rf"\b{name}\b", text), name
    for section, keys in KEYS.items():
        for key in keys:
            assert section == "uncertainty" or re.search(rf"\b{key}\b", text), (section, key)


def test_what_is_commented_out_in_the_carbon_file_is_understood(tmp_path: Path) -> None:
    known = {field.name for field in dataclasses.fields(Device)} | {key for keys in KEYS.values() for key in keys}
    for key, value in re.findall(r"^# (\w+) = ([^#\n]+)", starters.carbon(), flags=re.M):
        assert key in known, key
        tomllib.loads(f"{key} = {value}")


def test_a_file_is_not_written_over_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    assert main(["init", "accelerator", str(path)]) == 0
    before = path.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["init", "carbon", str(path)]) == 2
    assert "--force" in capsys.readouterr().err and path.read_text(encoding="utf-8") == before
    assert main(["init", "carbon", str(path), "--force"]) == 0
    assert path.read_text(encoding="utf-8") == starters.carbon()


def test_a_started_accelerator_costs_what_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(starters.accelerator("edge22"), encoding="utf-8")
    ours, theirs = evaluate("bert-tiny", str(path)), evaluate("bert-tiny", "edge22")
    assert ours["latency_s"] == theirs["latency_s"] and ours["total_kgco2e"] == theirs["total_kgco2e"]


def test_an_unknown_kind_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "acelerator"]) == 2
    assert "accelerator" in capsys.readouterr().err


def test_needed_fields_that_no_data_sheet_has_say_how_to_choose() -> None:
    lines = [line for line in starters.accelerator().splitlines() if "# needed" in line]
    said = {line.split(" = ")[0]: line.partition("#")[2] for line in lines}
    for name, words in (
        ("kind", ("tile", "TPU", "NVDLA")),
        ("lanes", ("softmax", "columns")),
        ("read_words_per_cycle", ("port", "word_bits")),
    ):
        assert all(word in said[name] for word in words)
