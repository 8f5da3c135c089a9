"""NSGA-II (pymoo) as an ask/tell strategy that is rebuilt from the trials.

pymoo keeps its state in an object; here the object is rebuilt by playing the recorded generations to it again with the same
seed, and kept between calls only to save that time. A design that may not be proposed, or has been, is replaced by a near one
that may. Failed trials count as worst; a generation is told when none of its trials is running.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.storage.trial import RUNNING, Proposal, Trial
from dse.strategies.drawing import draw, left_over
from dse.strategies.flat import fresh, neighbours, perturbed
from dse.strategies.protocol import WAIT, Wait, proposal_of, rng_of, taken_rows
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WORST = 1e30


class Nsga2Search:
    """Non-dominated sorting genetic algorithm II on the indices of the values, constraints by constraint dominance."""

    name = "nsga2"

    def __init__(self, *, population: int = 20) -> None:
        self.population = population
        self._memory: tuple[tuple[Any, ...], Any, Any, int] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        taken = taken_rows(task, history)
        if task.listable and not len(left_over(task, taken)):
            return None
        generation, place = divmod(number, self.population)
        past = history[: generation * self.population]
        if any(trial.state == RUNNING for trial in past):
            return WAIT
        wanted = self._generation(task, past, generation, seed)
        row = wanted[place % len(wanted)]
        rng = rng_of(seed, number)
        found = self._near(task, row, rng, taken)
        return None if found is None else proposal_of(task, found, generation=generation)

    def _near(self, task: Task, row: IntArray, rng: np.random.Generator, taken: set[tuple[int, ...]]) -> IntArray | None:
        for rows in (row[None, :], neighbours(task, row), perturbed(task, row, rng, 64)):
            found = fresh(task, rows, taken)
            if len(found):
                return np.asarray(found[rng.integers(len(found))])
        return draw(task, rng, taken)

    def _generation(self, task: Task, past: Sequence[Trial], generation: int, seed: int) -> IntArray:
        """What pymoo asks for in a generation, given all trials of the ones before."""
        key = (id(task), seed, self.population)
        if self._memory is not None and self._memory[0] == key and self._memory[3] == generation:
            asked = self._memory[2]
        else:
            start = 0
            if self._memory is not None and self._memory[0] == key and self._memory[3] == generation - 1:
                _, algorithm, asked, start = self._memory
            else:
                algorithm = self._algorithm(task, seed)
                asked = algorithm.ask()
            for g in range(start, generation):
                self._tell(task, algorithm, asked, past[g * self.population : (g + 1) * self.population])
                asked = algorithm.ask()
            self._memory = (key, algorithm, asked, generation)
        if asked is None or not len(asked):
            # pymoo found no new offspring; the near designs of the last generation serve.
            return np.array([task.space.index(trial.parameters) for trial in past[-self.population :]])
        return np.asarray(np.clip(np.rint(asked.get("X").astype(np.float64)).astype(np.int64), 0, np.array(task.space.shape) - 1))

    def _algorithm(self, task: Task, seed: int) -> Any:
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2
            from pymoo.core.problem import Problem
            from pymoo.operators.crossover.sbx import SBX
            from pymoo.operators.mutation.pm import PM
            from pymoo.operators.repair.rounding import RoundingRepair
            from pymoo.operators.sampling.rnd import IntegerRandomSampling
        except ModuleNotFoundError as error:
            raise DseError("strategy nsga2 needs the package pymoo; install dse-toolkit[search]") from error
        upper = np.array(task.space.shape) - 1
        problem = Problem(n_var=len(upper), n_obj=len(task.objectives), n_ieq_constr=1, xl=0, xu=upper, vtype=int)
        algorithm = NSGA2(
            pop_size=self.population,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
            mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
            eliminate_duplicates=True,
        )
        algorithm.setup(problem, termination=("n_gen", 10**9), seed=seed % 2**31, verbose=False)
        return algorithm

    def _tell(self, task: Task, algorithm: Any, asked: Any, trials: Sequence[Trial]) -> None:
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        if asked is None or not len(asked):
            return
        trials = trials[: len(asked)]
        rows = np.array([task.space.index(trial.parameters) for trial in trials])
        values = np.full((len(asked), len(task.objectives)), _WORST)
        broken = np.ones(len(asked))
        x = np.array(asked.get("X"))
        x[: len(rows)] = rows  # what was evaluated, which may be a near design
        for i, trial in enumerate(trials):
            points = task.points([trial])[0]
            if len(points):
                values[i], broken[i] = points.min(0), 0.0
            elif trial.done and task.inner is None:
                values[i] = [o.sign * trial.metrics[o.metric].mean for o in task.objectives]
                broken[i] = self._violation(task, trial)
        asked.set("X", x)
        Evaluator().eval(StaticProblem(algorithm.problem, F=values, G=broken[:, None]), asked)
        algorithm.tell(infills=asked)

    @staticmethod
    def _violation(task: Task, trial: Trial) -> float:
        """How far a trial is outside its constraints, each relative to its bound."""
        total = 0.0
        for c in task.constraints:
            if c.metric in trial.metrics:
                excess = trial.metrics[c.metric].mean - c.bound
                total += max(0.0, excess if c.relation == "<=" else -excess) / max(abs(c.bound), 1e-12)
        return max(total, 1e-9)
