"""Policies by name or file: those that come with the package, and files of users (data, never code)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from dse.errors import DseError, unknown_name
from dse.operate.agents.network import Learnt, load
from dse.operate.distil import TreePolicy, from_json
from dse.operate.simulation import Decides

SHIPPED = {
    "imitation": "imitates planning by what its share costs, in the hours that it meets itself (AggreVaTe)",
    "dqn": "deep Q-learning that starts from the plan's values",
    "ppo": "PPO with masked actions that starts from the plan's choices",
    "bandit": "a contextual bandit (SquareCB) on the levels, linear in the imitation's last hidden layer",
}
"""Learnt on the training weeks of CISO, ERCO, BPAT and NYIS together, with the example card (`benchmarks/operate_learn.py`)."""


def find(word: str) -> tuple[Decides, str, str]:
    """(policy, meaning, forecast) of a shipped name, a .safetensors file or a tree's .json file.

    Raises UsageError for an unknown name; DseError for a file that is no policy.
    """
    path = Path(word)
    if path.suffix == ".safetensors":
        return Learnt(load(path), path.stem), f"learnt policy of {path.name}", "ridge"
    if path.suffix == ".json":
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DseError(f"policy {word!r} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}") from error
        return TreePolicy(from_json(content, word), path.stem), f"policy tree of {path.name}", "ridge"
    if word not in SHIPPED:
        raise unknown_name("policy", word, SHIPPED)
    with resources.as_file(resources.files("dse").joinpath("data", "operate", f"{word}.safetensors")) as file:
        return Learnt(load(file), word), SHIPPED[word], "ridge"
