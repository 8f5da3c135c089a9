"""What learns: exploration by its chances, bandits against closed forms, policy files as data, shipped policies on judged weeks."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dse.operate import device, distil, features, ladder, policies, scenario, simulation
from dse.operate.agents import bandits, exploration, library, network
from dse.operate.agents.safety import Lagrangian
from dse.operate.features import LEVELS, names
from dse.operate.weeks import Queue


@pytest.fixture(scope="module")
def prepared():
    return scenario.Scenario(device.example(), ("CISO",)).prepared()


def chances(part, values: np.ndarray, valid: np.ndarray, level: float) -> np.ndarray:
    many = 40_000
    chosen = part.choose(np.tile(values, (many, 1)), np.tile(valid, (many, 1)), level, np.random.default_rng(0))
    return np.bincount(chosen, minlength=len(values)) / many


def test_exploration_has_the_chances_that_its_page_says() -> None:
    values, valid = np.array([0.1, 0.5, 0.3, 9.0]), np.array([True, True, True, False])
    assert chances(exploration.Epsilon(), values, valid, 0.3) == pytest.approx([0.1, 0.8, 0.1, 0.0], abs=0.01)
    weights = np.exp(np.array([0.1, 0.5, 0.3]) / 0.3)
    assert chances(exploration.Boltzmann(0.3), values, valid, 1.0)[:3] == pytest.approx(weights / weights.sum(), abs=0.01)
    other = [1 / (3 + 20 * 0.4), 1 / (3 + 20 * 0.2)]
    assert chances(exploration.SquareCB(20.0), values, valid, 1.0) == pytest.approx([other[0], 1 - sum(other), other[1], 0.0], abs=0.01)
    drawn = chances(exploration.Thompson(0.3), values, valid, 1.0)
    assert drawn[3] == 0.0 and drawn[1] > drawn[2] > drawn[0] > 0.1
    for name in exploration.NAMES:  # none explores at the end, none takes what is not valid
        assert chances(exploration.make(name), values, valid, 0.0)[1] == 1.0
    with pytest.raises(ValueError, match=r"exploration 'squarcb' is unknown.*squarecb"):
        exploration.make("squarcb")


@pytest.mark.parametrize("kind", ["linucb", "lints"])
def test_a_router_learns_what_requests_take_where(kind: str) -> None:
    """Energies of two places cross over in length and intensities change: the least grams are found, from what was chosen alone."""
    rng = np.random.default_rng(2)
    truth = np.array([[2e-4, 1e-6], [5e-5, 4e-6]])  # kWh: a request, and a token of it
    router = bandits.Router(2, 2, chooser=bandits.Chooser(kind), seed=1)
    late, cleanest = [], []
    for step in range(150):
        seen = np.column_stack([np.ones(10), rng.uniform(0, 200, 10)])
        intensity = rng.uniform(100, 300, (10, 2))
        arm = router.choose(seen, intensity)
        kwh = seen @ truth.T
        took = kwh[np.arange(10), arm] * rng.uniform(0.9, 1.1, 10)
        router.told(seen, arm, took)
        grams = kwh * intensity
        if step >= 100:
            late.append((grams[np.arange(10), arm] / grams.min(axis=1)).mean())
            cleanest.append((grams[np.arange(10), intensity.argmin(axis=1)] / grams.min(axis=1)).mean())
    assert np.mean(late) < 1.01
    assert np.mean(cleanest) > 1.1
    seen = np.array([[1.0, 50.0], [1.0, 150.0]])
    assert router.kwh(seen) == pytest.approx(seen @ truth.T, rel=0.1)
    alone = np.array([[True, False], [False, True]])
    assert router.choose(seen, np.full((2, 2), 200.0), alone).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"intensity has shape \(2, 3\), must be \(2, 2\)"):
        router.choose(seen, np.ones((2, 3)))


def test_bandits_find_the_arm_that_depends_on_the_context() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, 4))
    for kind in bandits.KINDS:
        model, chooser = bandits.Linear(4, 3), bandits.Chooser(kind)
        for step in range(60):
            seen = rng.normal(size=(20, 4))
            arm = chooser.choose(model, seen, np.ones((20, 3), dtype=bool), 1 - step / 60, rng)
            model.update(seen, arm, (seen @ truth.T)[np.arange(20), arm] + rng.normal(scale=0.1, size=20))
        seen = rng.normal(size=(500, 4))
        best = np.argmax(seen @ truth.T, axis=1)
        assert (np.argmax(model.network({})(seen), axis=1) == best).mean() > 0.93, kind
    # the posterior of an arm is the ridge regression of its own rewards
    model = bandits.Linear(4, 1)
    seen, reward = rng.normal(size=(30, 4)), rng.normal(size=30)
    model.update(seen[:10], np.zeros(10, dtype=int), reward[:10])
    model.update(seen[10:], np.zeros(20, dtype=int), reward[10:])
    assert model.theta[0] == pytest.approx(np.linalg.solve(seen.T @ seen + np.eye(4), seen.T @ reward), rel=1e-10)


def test_learning_from_a_log_corrects_for_who_wrote_it() -> None:
    """The logger takes arm 1 mostly where it is bad; weights by chances undo that."""
    rng = np.random.default_rng(1)
    seen = np.column_stack([np.ones(6000), rng.random(6000)])
    chance_1 = np.where(seen[:, 1] > 0.5, 0.1, 0.9)
    action = (rng.random(6000) < chance_1).astype(int)
    reward = np.where(action == 1, seen[:, 1] ** 2, 0.3)  # not linear: an unweighted fit is bent to where the logger was
    chance = np.where(action == 1, chance_1, 1 - chance_1)
    made = bandits.from_log(seen, action, reward, chance, actions=2)
    fitted = made.weights[0][1]
    even = np.linalg.lstsq(seen, seen[:, 1] ** 2, rcond=None)[0]
    bent = np.linalg.lstsq(seen[action == 1], seen[action == 1][:, 1] ** 2, rcond=None)[0]
    assert np.abs(fitted - even).max() < 0.3 * np.abs(bent - even).max()
    for change, said in ((chance * 0, "must be above 0"), (chance[:5], "must have as many")):
        with pytest.raises(ValueError, match=said):
            bandits.from_log(seen, action, reward, change, actions=2)
    with pytest.raises(ValueError, match="never takes action 2"):
        bandits.from_log(seen, action, reward, chance, actions=3)


def test_a_neural_linear_bandit_learns_on_the_last_layer() -> None:
    rng = np.random.default_rng(2)
    deep = network.Network((rng.normal(size=(8, 3)), rng.normal(size=(1, 8))), (rng.normal(size=8), np.zeros(1)), "share")
    seen = rng.normal(size=(3000, 3))
    hidden = bandits.lifted(deep, seen)
    truth = rng.normal(size=(2, 9))
    action = rng.integers(0, 2, 3000)
    made = bandits.neural_linear(deep, seen, action, (hidden @ truth.T)[np.arange(3000), action], actions=2)
    assert made(seen) == pytest.approx(hidden @ truth.T, abs=0.05)


def test_policy_files_are_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = network.Network(
        (rng.normal(size=(6, 39)), rng.normal(size=(5, 6))), (rng.normal(size=6), rng.normal(size=5)), "levels", 1, {"a": 1}
    )
    back = network.load(made.save(tmp_path / "p.safetensors"))
    seen = rng.normal(size=(4, 39))
    assert back.about == {"a": 1} and back(seen) == pytest.approx(made(seen), rel=1e-5)  # kept in single precision
    for content in (
        b"",
        b"\x80\x04pickle",
        b"\xff" * 64,
        (8).to_bytes(8, "little") + b"{}" * 4,
        made.save(tmp_path / "q.safetensors").read_bytes()[:-9],
    ):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is no policy of dse-operate-1") as caught:
            network.load(tmp_path / "bad.safetensors")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="must follow 6"):
        network.Network((np.zeros((6, 39)), np.zeros((5, 7))), (np.zeros(6), np.zeros(5)), "levels")
    with pytest.raises(ValueError, match="not finite"):
        network.Network((np.full((5, 39), np.nan),), (np.zeros(5),), "levels")
    other = network.Network((np.zeros((5, 12)),), (np.zeros(5),), "levels").save(tmp_path / "o.safetensors")
    with pytest.raises(ValueError, match="takes 12 numbers"):
        simulation.simulate(scenario.Scenario(device.example(), ("CISO",)).prepared().weeks("test", most=1), library.find(str(other))[0])
    with pytest.raises(ValueError, match=r"policy 'ddqn' is unknown.*'dqn'"):
        library.find("ddqn")


def test_shipped_policies_on_weeks_that_they_never_saw() -> None:
    shares = {}
    for name in ("CISO", "NYIS"):
        learnt = [library.find(word) for word in library.SHIPPED]
        found = ladder.build(scenario.Scenario(device.example(), (name,)).prepared(), steps=["mpc"], learnt=learnt)
        for word in library.SHIPPED:
            row = found.row(word)
            assert row.missed == 0.0
            shares[name, word] = row.share / found.row("mpc").share
        if name == "CISO":
            assert min(found.row(word).share for word in ("imitation", "dqn", "ppo")) >= 0.8
    assert min(shares[name, word] for name in ("CISO", "NYIS") for word in ("imitation", "dqn", "ppo")) >= 0.95
    assert min(shares.values()) > 0.5


def test_a_tree_does_what_its_teacher_does(prepared, tmp_path: Path) -> None:
    train = prepared.weeks("train", most=8)
    root = distil.fit(train, policies.Plan(), depth=4, rounds=2)
    assert 1 <= root.depth <= 4
    found = ladder.build(prepared, steps=["mpc"], learnt=[(distil.TreePolicy(root), "tree", "ridge")])
    assert found.row("tree").share >= 0.95 * found.row("mpc").share and found.row("tree").missed == 0.0
    flat = distil.fit(train, policies.Plan(), depth=0, rounds=1)
    assert ladder.build(prepared, steps=[], most=4, learnt=[(distil.TreePolicy(flat), "t", "ridge")]).row("tree").share < 0.8
    # the three forms say the same
    assert distil.from_json(distil.json_text(root), "x") == root
    assert distil.text(root).count("run ") == distil.c_text(root).count("return ")
    rng = np.random.default_rng(0)
    seen = {name: rng.random(200) for name in distil.FEATURES}
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        rows = [", ".join(repr(float(seen[name][i])) for name in distil.FEATURES) for i in range(200)]
        calls = "".join(f'printf("%.17g ", dse_operate_share({row}));' for row in rows)
        (tmp_path / "tree.c").write_text(f"#include <stdio.h>\n{distil.c_text(root)}int main(void) {{{calls} return 0;}}\n")
        subprocess.run([compiler, "-Wall", "-Werror", "-o", tmp_path / "tree", tmp_path / "tree.c"], check=True)
        out = subprocess.run([tmp_path / "tree"], check=True, capture_output=True, text=True).stdout
        assert [float(line) for line in out.split()] == root.levels(seen).tolist()
    for wrong in ("[1]", "{}", "no", json.dumps({"format": distil.FORMAT, "tree": {"feature": "os", "at_most": 1, "yes": {}, "no": {}}})):
        with pytest.raises(ValueError, match=r"^x is|node that is none"):
            distil.from_json(wrong, "x")


def test_names_of_the_observation_fit_it(prepared) -> None:
    from dse.operate.features import View
    from dse.operate.weeks import Queue

    weeks = prepared.weeks("train", most=2)
    view, queue = View(weeks), Queue(weeks)
    seen = view.observe(queue)
    assert seen.shape == (2, len(names()))
    told = dict(zip(names(), seen[0], strict=True))
    ahead = weeks.forecast[0, 0, 0]
    now = weeks.intensity[0, 0, 0]
    assert told["intensity_ratio"] == pytest.approx(now / np.mean([now, *ahead]))
    assert told["share_of_cheaper_hours"] == pytest.approx((ahead < now).mean())
    assert told["waiting"] == pytest.approx(queue.total[0] / weeks.curves[0].work[1])
    assert len(LEVELS) == view.actions


def test_a_price_on_misses_rises_until_they_stop() -> None:
    price = Lagrangian(target=0.01, rate=10.0, price=0.0)
    assert [price.update(0.11), price.update(0.11), price.update(0.0)] == pytest.approx([1.0, 2.0, 1.9])
    assert Lagrangian(price=0.0).update(-1.0) == 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_learners_from_every_part(prepared) -> None:
    """Each learner in each make-up learns something in a few seconds, on one grid, and misses nothing behind the filter."""
    pytest.importorskip("sb3_contrib")
    from dse.operate.agents import learners

    train, validation = prepared.weeks("train"), prepared.weeks("validation")
    now, best = (ladder.run_step(prepared, ladder.RULES[name], "test").total_grams for name in ("now", "optimum"))

    def share(made: network.Network) -> float:
        found = simulation.simulate(prepared.weeks("test"), network.Learnt(made, "x"))
        assert found.missed.max() == 0.0
        return (now - found.total_grams) / (now - best)

    assert share(learners.imitation(train, rounds=2, epochs=8)) > 0.8
    for name in exploration.NAMES:
        assert share(learners.dqn(train, learners.Parts(exploration=name, replay="hindsight", steps=12_000), validation)) > 0.7
    assert share(learners.ppo(train, learners.Parts(steps=12_000), validation)) > 0.8
    assert share(learners.ppo(train, learners.Parts(steps=12_000, stack=3), validation)) > 0.0
    learners.dqn(train, learners.Parts(safety="lagrangian", steps=8_000))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_costs_of_shares_are_least_at_the_share_of_the_plan(prepared) -> None:
    pytest.importorskip("sb3_contrib")
    from dse.operate.agents import learners

    weeks = prepared.weeks("train", most=2)
    seen, costs = learners.costs_of_shares(weeks)
    told, shares, stakes = learners.examples(weeks, policies.Plan())
    shares, stakes = shares[:, 0], stakes[:, 0]
    assert seen == pytest.approx(told)  # the same hours: the plan leads in both
    rows = np.flatnonzero(stakes > 1e-6 * weeks.curves[0].capacity)
    assert len(rows) > 50
    assert (costs >= 0).all() and (costs.min(axis=1) == 0).all()
    # Convex in the share, so that beside the plan's own share nothing is cheaper: its neighbours on the grid hold the least.
    second = np.diff(costs[rows], n=2, axis=1)
    assert second.min() > -1e-9 * costs.max()
    below = np.clip(np.floor(shares[rows] * 8).astype(int), 0, 7)
    near = np.minimum(costs[rows, below], costs[rows, below + 1])
    assert near.max() < 0.05 * costs.max()
    assert (near < 1e-9).mean() > 0.95


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def testcost_between_shares_is_linear() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("sb3_contrib")
    from dse.operate.agents import learners

    costs = torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 6.0]])
    for share, expected in ((0.0, (4.0, 0.0)), (0.25, (2.5, 1.0)), (0.5, (1.0, 2.0)), (1.0, (0.0, 6.0))):
        for row in (0, 1):
            out = torch.full((1,), share, requires_grad=True)
            loss = learners.cost_between(out, costs[row : row + 1])
            assert float(loss) == pytest.approx(expected[row])
    loss.backward()
    assert float(out.grad) == pytest.approx(8.0)  # the slope of the last piece: 4 over half a share


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_policy_of_sac_is_the_mean_of_its_actor(prepared) -> None:
    pytest.importorskip("sb3_contrib")
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv

    from dse.operate.agents import learners
    from dse.operate.agents.vectorised import Side

    weeks = prepared.weeks("train", most=4)
    side = Side(weeks, 3, continuous=True)
    assert isinstance(side, VecEnv) and isinstance(side.action_space, gymnasium.spaces.Box)
    seen = side.reset()
    # the plan's share runs what the plan runs
    view, queue = side._batch.view, side._batch.queue
    planned = view.plan.work(queue, view.room(queue))
    least, most = view.bounds(queue, view.room(queue))
    assert side._batch.shared((side.planned()[:, 0] + 1) / 2) == pytest.approx(np.clip(planned, np.minimum(least[:, None], most), most))
    made = learners.sac(weeks, learners.Parts(steps=1000, start="none"))
    assert made.head == "share" and made.about["learnt_by"] == "sac"
    assert network.Learnt(made, "sac").network(seen.astype(float)).shape == (3, 1)
    with pytest.raises(ValueError, match="sac takes no history"):
        learners.sac(weeks, learners.Parts(stack=2))


def test_a_bandit_on_a_trunk_is_the_trunk_with_ridge_regressions_of_what_was_chosen(prepared) -> None:
    """Its head against the closed form on the hours that it met: nothing else of the network changes."""
    train, outcomes = prepared.weeks("train", most=2), prepared.weeks("train", "truth", most=2)
    trunk = library.find("imitation")[0].network
    met: list[tuple[np.ndarray, ...]] = []
    update = bandits.Linear.update

    def kept(model, seen, arm, reward, weight=None):
        met.append((seen, arm, reward))
        update(model, seen, arm, reward, weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandits.Linear, "update", kept)
        made = bandits.learn(train, outcomes, chooser=bandits.Chooser("squarecb"), seed=2, passes=1, trunk=trunk)
    assert made.head == "levels" and all(np.array_equal(a, b) for a, b in zip(made.weights[:-1], trunk.weights[:-1], strict=True))
    seen, arm, reward = (np.concatenate(part) for part in zip(*met, strict=True))
    assert seen.shape == (2 * 168, trunk.weights[-1].shape[1] + 1) and (seen[:, -1] == 1.0).all()
    for a in range(len(LEVELS)):
        x = seen[arm == a]
        theta = np.linalg.solve(x.T @ x + bandits.TRUNK_RIDGE * np.eye(x.shape[1]), x.T @ reward[arm == a])
        assert np.concatenate([made.weights[-1][a], made.biases[-1][a : a + 1]]) == pytest.approx(theta, abs=1e-9)


def test_costs_of_work_at_several_sites_are_least_where_the_plan_runs_it() -> None:
    """At one site both forms say the same; no action of the pupil is cheaper than what the plan runs, under the plan's own model."""
    two = scenario.Scenario(device.example(), ("CISO", "NYIS")).prepared().weeks("train", most=2)
    for weeks in (two, scenario.Scenario(device.example(), ("CISO",)).prepared().weeks("train", most=2)):
        view, queue, plan = features.View(weeks), Queue(weeks), policies.Plan()
        plan.begin(weeks)
        for _ in range(60):
            room = queue.room
            runs = plan.work(queue, room)
            each = [np.clip(view.work(queue, np.full(weeks.episodes, a)), 0.0, room) for a in range(view.actions)]
            works = np.stack([*each, runs], axis=1)
            told = plan.costs(queue, room, works)
            if weeks.sites == 1:
                assert np.array_equal(told, plan.costs(queue, room, works[:, :, 0]))
            assert (told[:, :-1].min(axis=1) >= told[:, -1] * (1 - 1e-9)).all()
            queue.run(view.guard.correct(queue, runs, room))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["imitation", "dqn", "ppo", "sac"])
def test_learners_learn_at_two_sites(by: str) -> None:
    pytest.importorskip("stable_baselines3")
    from dse.operate.agents import learners

    both = scenario.Scenario(device.example(), ("CISO", "NYIS")).prepared()
    train, judged = both.weeks("train"), both.weeks("test", most=6)
    parts = learners.Parts(steps=12_000)
    made = learners.imitation(train) if by == "imitation" else getattr(learners, by)(train, parts, both.weeks("validation"))
    assert made.head == ("share" if by in ("imitation", "sac") else "levels")
    now, plan, own = (simulation.simulate(judged, who) for who in (policies.Now(), policies.Plan(), network.Learnt(made, by)))
    assert own.missed.max() == 0.0
    assert now.total_grams - own.total_grams > 0.8 * (now.total_grams - plan.total_grams)
