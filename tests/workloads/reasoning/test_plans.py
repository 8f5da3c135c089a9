"""Plans of loops: tokens against closed forms, chances against enumeration and draws, tables against sums over whole passes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from workloads import load
from workloads.errors import WorkloadError
from workloads.ops import ATTENTION
from workloads.reasoning.closed_forms import chain_tokens, maca_tokens
from workloads.reasoning.phases import Node, PhaseGraph, Stage, Work, cache_bytes, work_table
from workloads.reasoning.plans import KV, LOOPS, Lengths, check_knob, loop
from workloads.reasoning.rates import Rates, correction, maca_quality, plurality, reset, verdict


def _plan(name: str, rates: Rates | None = None, lengths: Lengths | None = None, **knobs):
    of = loop(name)
    chosen = {knob: values[0] for knob, values in of.knobs.items()} | {"problems": 1} | knobs
    return of.plan(lengths or of.lengths, rates or Rates(), chosen)


@pytest.mark.parametrize("kv", KV)
@pytest.mark.parametrize(("agents", "rounds"), [(3, 2), (1, 1), (5, 3)])
def test_maca_tokens_are_the_closed_form(kv: str, agents: int, rounds: int) -> None:
    lengths = Lengths(prompt=150, answer=200, wrapper=37)
    graph = PhaseGraph.of(_plan("maca", lengths=lengths, kv=kv, agents=agents, rounds=rounds).stages)
    wanted = maca_tokens(agents=agents, rounds=rounds, prompt=150, answer=200, wrapper=37, reuse=kv != "none")
    assert (graph.tokens("prefill"), graph.tokens("decode")) == (wanted.prefill, wanted.decode)


def test_first_chain_computes_twelve_times_fewer_prompt_tokens_with_a_prefix_cache() -> None:
    found = {kv: PhaseGraph.of(_plan("thought-ics", kv=kv, corrections=0).stages) for kv in KV}
    for kv, graph in found.items():
        wanted = chain_tokens(prompt=450, thoughts=8, thought=60, reuse=kv != "none")
        assert (graph.tokens("prefill"), graph.tokens("decode")) == (wanted.prefill, wanted.decode)
    assert found["none"].tokens("prefill") / found["prefix"].tokens("prefill") == pytest.approx(11.73, abs=0.005)


@pytest.mark.parametrize("name", sorted(LOOPS))
@pytest.mark.parametrize("kv", KV)
def test_draws_have_the_stages_expectations(name: str, kv: str) -> None:
    knobs = {"samples": 3, "votes": 3, "corrections": 2, "suffixes": 3, "agents": 3, "rounds": 2, "problems": 2, "kv": kv}
    plan = _plan(name, Rates(error=0.2), **{k: v for k, v in knobs.items() if k in LOOPS[name].knobs})
    counts = plan.draw(np.random.default_rng(1), 20_000)
    assert counts.shape == (20_000, len(plan.stages))
    expected = np.array([stage.trials * stage.probability for stage in plan.stages])
    error = np.maximum(counts.std(axis=0) / np.sqrt(len(counts)), 1e-12)
    # 4 standard errors: some 70 stages are looked at together.
    assert (np.abs(counts.mean(axis=0) - expected) / error).max() < 4
    assert np.array_equal(counts, plan.draw(np.random.default_rng(1), 20_000))


def _first_most_frequent(votes: tuple[int, ...]) -> int:
    return Counter(votes).most_common(1)[0][0]


@pytest.mark.parametrize("votes", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("others", [1, 2, 3])
def test_plurality_against_every_order_of_votes(votes: int, others: int) -> None:
    right = 0.37
    total = 0.0
    for cast in itertools.product(range(others + 1), repeat=votes):
        chance = np.prod([right if vote == 0 else (1 - right) / others for vote in cast])
        total += chance * (_first_most_frequent(cast) == 0)
    assert plurality(votes, right, others) == pytest.approx(total, abs=1e-12)


def test_verdict_of_votes() -> None:
    assert verdict(1, 0.8, 0.3) == pytest.approx(0.8)
    assert verdict(3, 0.8, 0.0) == pytest.approx(3 * 0.8**2 * 0.2 + 0.8**3)
    assert verdict(2, 0.8, 0.0) == pytest.approx(0.64)  # more than half of two is both
    assert verdict(3, 0.8, 1.0) == pytest.approx(0.8)


def test_debate_against_every_way() -> None:
    # Two rounds of three agents by enumeration of answers and of who gives in.
    rates, wrong = Rates(accuracy=0.5, persuasion=0.6, wrong_answers=2), 2
    won = 0.0
    for first in itertools.product(range(wrong + 1), repeat=3):
        chance = np.prod([0.5 if answer == 0 else 0.5 / wrong for answer in first])
        for giving in itertools.product((0, 1), repeat=3):
            move = np.prod([0.6 if g else 0.4 for g in giving])
            last = []
            for agent, own in enumerate(first):
                counts = Counter(first[:agent] + first[agent + 1 :])
                counts[own] += 0
                top = [name for name, n in counts.items() if n == max(counts.values())]
                last.append(top[0] if giving[agent] and len(top) == 1 else own)
            tally = Counter(last)
            best = [name for name, n in tally.items() if n == max(tally.values())]
            won += chance * move * (0 in best) / len(best)
    assert maca_quality(rates, agents=3, rounds=2) == pytest.approx(won, abs=1e-12)
    assert maca_quality(Rates(accuracy=0.6), agents=3, rounds=1) == pytest.approx(plurality(3, 0.6, 4))


def test_rollouts_with_a_reset_by_drawing() -> None:
    rates, n, base, suffixes, draws = Rates(error=0.25, resample_error=0.4, localisation=0.6), 4, 2, 3, 200_000
    found = reset(rates, thoughts=n, base=base, suffixes=suffixes)
    rng = np.random.default_rng(5)
    wrong = rng.random((draws, base, n)) < rates.error
    first = np.where(wrong.any(axis=2), np.argmax(wrong, axis=2) + 1, 0)
    failed = (first > 0).any(axis=1)
    chosen = np.take_along_axis(first, np.argmax(first > 0, axis=1)[:, None], axis=1)[:, 0]
    place = np.where(rng.random(draws) < rates.localisation, chosen, rng.integers(1, n + 1, draws))
    steps = np.arange(1, n + 1)
    chance = np.where(steps == chosen[:, None], rates.resample_error, rates.error)
    again = (rng.random((draws, suffixes, n)) < chance[:, None, :]) & (steps >= place[:, None])[:, None, :]
    good = ~again.any(axis=2) & (place <= chosen)[:, None] & failed[:, None]
    solved = (first == 0).any(axis=1) | good.any(axis=1)
    base_mixed = (first == 0).any(axis=1) & failed
    mixed = good.any(axis=1) & ~good.all(axis=1)
    for mean, value in ((failed.mean(), found.failed), (solved.mean(), found.solved), ((base_mixed | mixed).mean(), found.signal)):
        assert abs(mean - value) < 4 * np.sqrt(0.25 / draws)
    for k in range(1, n + 1):
        assert abs((failed & (place <= k)).mean() - found.reset[k - 1]) < 4 * np.sqrt(0.25 / draws)


def test_corrections_are_shares_of_chains() -> None:
    found = correction(Rates(), thoughts=6, corrections=5, votes=3, oracle=False)
    assert (np.diff(found.alive.sum(axis=1)) <= 1e-12).all()
    assert (found.flagged <= found.alive + 1e-12).all()
    assert np.allclose(found.reset[:, -1], found.flagged.sum(axis=1))
    assert (np.diff(found.reset, axis=1) >= -1e-12).all()
    oracle = correction(Rates(), thoughts=6, corrections=5, votes=1, oracle=True)
    assert (np.diff(oracle.right) > 0).all()


def test_graph_waits_for_dependences() -> None:
    work = Work("decode", 1)
    stages = [
        Stage("think", work, 1),
        Stage("think", work, 1, after=(0,)),
        Stage("vote", work, 1, after=(0,)),
        Stage("think", work, 1, after=(1, 2)),
    ]
    graph = PhaseGraph.of(stages)
    assert graph.critical_path([1.0, 2.0, 5.0, 1.0]) == 7.0
    # What no sequence does is passed over, and what waited for it waits for what stood before it.
    shorter = PhaseGraph.of(stages, [1, 1, 0, 1])
    assert shorter.nodes[-1] == Node("think", work, 1, (1, 0))
    assert shorter.critical_path([1.0, 2.0, 1.0]) == 4.0
    assert PhaseGraph(()).critical_path([]) == 0.0


@pytest.mark.parametrize("model", ["llama3-8b", "gemma-2-2b", "mixtral-8x7b"])
def test_a_prompt_behind_a_context_is_the_rest_of_the_whole_prompt(model: str) -> None:
    family = load(model)
    whole = work_table(family, Work("prefill", 700), 2)
    first = work_table(family, Work("prefill", 300), 2)
    rest = work_table(family, Work("prefill", 400, 300), 2)

    def pairs(table):
        rows = np.isin(table.kind, ATTENTION)
        return int((table.row_macs() * rows).sum())

    assert pairs(rest) == pairs(whole) - pairs(first)


def test_decoding_reads_a_shared_beginning_once_for_its_sharers() -> None:
    family = load("llama3-8b")
    alone = work_table(family, Work("decode", 10, 500), 8)
    tree = work_table(family, Work("decode", 10, 500, 400, 4), 8)
    assert tree.macs() == alone.macs()

    def read(table):
        rows = np.isin(table.kind, ATTENTION)
        return int((table.row_second_elements() * table.repeat * rows).sum())

    per_key = 32 * 8 * 2 * 128  # layers, KV heads, key and value, width
    assert read(alone) == per_key * 8 * sum(range(501, 511))
    assert read(tree) == per_key * (2 * 10 * 400 + 8 * sum(range(101, 111)))
    # A last group that is not full counts as full.
    assert read(work_table(family, Work("decode", 10, 500, 400, 4), 7)) == per_key * (2 * 10 * 400 + 7 * sum(range(101, 111)))


def test_cache_holds_what_is_shared_once() -> None:
    family = load("llama3-8b")
    one = cache_bytes(family, Work("decode", 0, 1), 1)
    assert cache_bytes(family, Work("decode", 10, 500), 8) == pytest.approx(8 * 510 * one)
    assert cache_bytes(family, Work("decode", 10, 500, 400, 4), 8) == pytest.approx((2 * 400 + 8 * 110) * one)
    assert cache_bytes(family, Work("host", 0), 8) == 0


def test_training_parts_make_the_whole_step() -> None:
    family = load("llama3.2-1b")
    parts = [work_table(family, Work(kind, 96), 3, lora_rank=8) for kind in ("train_forward", "train_backward")]
    whole = family.build(phase="train", batch=3, sequence=96, lora_rank=8, fused_attention=True).phases[0].table
    step = work_table(family, Work("optimiser", 0), 1, lora_rank=8)
    assert sum(part.macs() for part in parts) == whole.macs()
    assert len(step) == 1
    assert len(parts[0]) + len(parts[1]) + len(step) == len(whole)


def test_a_packed_tree_trains_a_beginning_once() -> None:
    tokens = {}
    for kv in ("prefix", "tree"):
        stages = _plan("srpo", Rates(error=1.0, localisation=1.0), kv=kv, samples=4, suffixes=4).stages
        tokens[kv] = sum(s.work.new_tokens * s.trials * s.multiple * s.probability for s in stages if s.work.kind == "train_forward")
    whole = 450 + 8 * 60
    assert tokens["prefix"] == 8 * whole
    # Every chain is wrong at once, so that suffixes begin behind the prompt.
    assert tokens["tree"] == 450 + 8 * 480


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("samples", 0, "from 1"),
        ("votes", True, "from 1"),
        ("kv", "trie", "tree"),
        ("level", "judge", "oracle"),
        ("agents", 3, "knob of thought-ics"),
    ],
)
def test_knobs_are_checked(name: str, value: object, told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        check_knob(loop("thought-ics"), name, value)


def test_lengths_and_rates_are_checked() -> None:
    with pytest.raises(WorkloadError, match="thoughts is 0"):
        Lengths(thoughts=0)
    with pytest.raises(WorkloadError, match=r"error is 1\.5"):
        Rates(error=1.5)
    with pytest.raises(WorkloadError, match="wrong_answers is 0"):
        Rates(wrong_answers=0)
    with pytest.raises(WorkloadError, match="shared"):
        Work("decode", 1, 2, 3)
    with pytest.raises(WorkloadError, match="nearest is 'thought-ics'"):
        loop("thought-isc")
