"""Flat search with BoTorch's models and acquisition, and the bridge to Ax for its analyses.

The search is that of :mod:`dse.strategies.flat` (initial design, pool of designs that may be proposed, local search) with
BoTorch's ``SingleTaskGP`` and ``qLogNoisyExpectedHypervolumeImprovement`` in place of the closed forms. Stock Ax is not
used to generate: it models every constraint metric by a process of its own, takes costs as they are, refuses products as
constraints and constraints on powers of two, spends one more quasi-random trial after a warm start, and needs two to three
times the time and memory (measured in docs/models/search.md). :func:`client` hands a study to Ax for everything else it
offers: its analyses, its storage and its own further trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.storage.trial import Proposal, Trial
from dse.strategies.flat import Acquisition, FlatSearch, Model, modelled_over
from dse.strategies.surrogates.torch_extensions import warm
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SAMPLES = 64
# Least variance that is told to a model of exact observations, in units of the standardised metric.
_LEAST_VARIANCE = 1e-6
_CHUNK = 256


def _need(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise DseError(f"strategy ax needs the package {package}; install dse-toolkit[search]")


class _Process:
    """A BoTorch model behind the face of :class:`dse.strategies.surrogates.gp.GaussianProcess`."""

    def __init__(self, inputs: FloatArray, values: FloatArray, noise: FloatArray) -> None:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms.outcome import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood

        # Built-in tensors of one type on one device: double, as BoTorch asks.
        x, y = torch.as_tensor(inputs, dtype=torch.double), torch.as_tensor(values, dtype=torch.double)[:, None]
        spread = max(float(values.std()), 1e-12)
        variance = torch.as_tensor(np.maximum(noise, _LEAST_VARIANCE * spread**2), dtype=torch.double)[:, None]
        self.model = SingleTaskGP(x, y, variance, outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(self.model.likelihood, self.model))

    def predict(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        import warnings

        import torch

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = self.model.posterior(torch.as_tensor(inputs, dtype=torch.double))
            return posterior.mean[:, 0].numpy(), posterior.variance[:, 0].clamp_min(0).sqrt().numpy()


class AxSearch(FlatSearch):
    """Flat search by BoTorch; torch is imported at the first proposal that needs a model."""

    name = "ax"

    def __init__(self, *, initial: int | None = None, say: Callable[[str], None] | None = None) -> None:
        super().__init__(initial=initial)
        self.say = say
        self._warm = False

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        _need("botorch")
        return super().propose(task, history, number, seed)

    def acquisition(self, task: Task, history: Sequence[Trial]) -> Acquisition:
        """BoTorch's acquisition on BoTorch's models."""
        import torch

        if not self._warm:
            warm(self.say)
            self._warm = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(history))
            return _BotorchAcquisition(task, history, self.fit)

    def fit(self, task: Task, metric: str, inputs: FloatArray, values: FloatArray, noise: FloatArray, log: bool) -> Model:
        """See :meth:`dse.strategies.flat.FlatSearch.fit`."""
        import warnings

        columns = modelled_over(task, metric)
        with warnings.catch_warnings():
            # Advice for interactive use (scaling, numerical retries); the inputs are scaled and the outputs standardised.
            warnings.simplefilter("ignore")
            process: Any = _Process(inputs[:, columns], values, noise)
        return Model(process, columns, log)


class _BotorchAcquisition(Acquisition):
    """qLogNoisyExpectedHypervolumeImprovement of the task's objectives, in the units of the metrics."""

    def __init__(self, task: Task, history: Sequence[Trial], fit: object) -> None:
        super().__init__(task, history, fit)
        import warnings

        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
        from botorch.models.deterministic import GenericDeterministicModel
        from botorch.models.model import ModelList
        from botorch.models.model_list_gp_regression import ModelListGP
        from botorch.sampling.get_sampler import get_sampler

        models, self._names = [], [o.metric for o in task.objectives]
        self._names += [c.metric for c in task.constraints if c.metric in self.models and c.metric not in self._names]
        for name in self._names:
            if name in self.models:
                models.append(_OnColumns.of(self.models[name]))
            else:
                models.append(GenericDeterministicModel(self._exact(name), num_outputs=1))
        all_measured = all(name in self.models for name in self._names)
        self._model = (ModelListGP if all_measured else ModelList)(*models)
        logs = [name in self.models and self.models[name].log for name in self._names]
        signs = [o.sign for o in task.objectives]

        def units(samples: Any, X: Any = None) -> Any:
            columns = [torch.exp(samples[..., j]) if logs[j] else samples[..., j] for j in range(len(signs))]
            return torch.stack([-sign * column for sign, column in zip(signs, columns, strict=True)], dim=-1)

        def slack(j: int, sign: float, bound: float) -> Callable[[Any], Any]:
            level = float(np.log(bound)) if logs[j] else bound
            return lambda samples: sign * (samples[..., j] - level)

        constraints = [
            slack(self._names.index(c.metric), 1.0 if c.relation == "<=" else -1.0, c.bound)
            for c in task.constraints
            if c.metric in self.models
        ]
        done = np.array([task.space.index(t.parameters) for t in history if t.done])
        baseline = self._inputs(done)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad():
                posterior: Any = self._model.posterior(baseline)
            self._function = qLogNoisyExpectedHypervolumeImprovement(
                model=self._model,
                ref_point=[float(-value) for value in self.reference],
                X_baseline=baseline,
                sampler=get_sampler(posterior, torch.Size([_SAMPLES]), seed=len(history)),
                objective=GenericMCMultiOutputObjective(units),
                constraints=constraints or None,
                X_pending=self._inputs(self.pending) if len(self.pending) else None,
                prune_baseline=True,
            )

    def _exact(self, name: str) -> Callable[[Any], Any]:
        import torch

        def values(inputs: Any) -> Any:
            flat = inputs.reshape(-1, inputs.shape[-1]).numpy()
            known = self._known(self.task.space.nearest(flat))
            return torch.as_tensor(np.array(known[name]), dtype=torch.double).reshape(*inputs.shape[:-1], 1)

        return values

    def _inputs(self, rows: IntArray) -> Any:
        import torch

        return torch.as_tensor(self.task.space.coded(rows), dtype=torch.double)

    def __call__(self, rows: IntArray) -> FloatArray:
        """Exponential of the acquisition: larger is better, positive."""
        import warnings

        import torch

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = self._inputs(rows)[:, None, :]
            parts = [self._function(inputs[i : i + _CHUNK]) for i in range(0, len(inputs), _CHUNK)]
            return np.asarray(torch.cat(parts).exp().numpy())


class _OnColumns:
    """Makes a BoTorch model of some columns take whole designs."""

    @staticmethod
    def of(model: Model) -> Any:
        import torch
        from botorch.models.transforms.input import FilterFeatures

        process: Any = model.process
        found = process.model
        features = torch.as_tensor(model.columns)
        # The model was trained on its own columns; the filter applies to what it is asked from now on.
        found.input_transform = FilterFeatures(feature_indices=features, transform_on_train=False)
        found.eval()
        return found


def client(task: Task, trials: Sequence[Trial], *, name: str = "dse", seed: int = 0) -> Any:
    """An ``ax.Client`` that holds the completed trials of a study: for Ax's analyses, storage and further trials.

    Powers of two are coded by their exponent (parameter ``log2_NAME``): Ax would otherwise search them by logarithm and
    refuse constraints on them. What it generates next comes from its model at once: the trials count as initialisation.
    """
    _need("ax")

    warm()  # before Ax does it in a folder of nobody's
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    done = [trial for trial in trials if trial.done]
    parameters: list[Any] = []
    for parameter in task.space.parameters:
        if len(parameter.values) < 2:
            continue
        if _by_exponent(parameter):
            exponents = np.log2(parameter.column.astype(np.float64)).astype(int)
            parameters.append(
                RangeParameterConfig(name=f"log2_{parameter.name}", parameter_type="int", bounds=(int(exponents[0]), int(exponents[-1])))
            )
            continue
        kind: Any = "str" if not parameter.numeric else "int" if all(isinstance(v, int) for v in parameter.values) else "float"
        parameters.append(
            ChoiceParameterConfig(name=parameter.name, values=_any(list(parameter.values)), parameter_type=kind, is_ordered=True)
        )
    made = Client(random_seed=seed)
    made.configure_experiment(parameters=parameters, name=name)
    objective = ", ".join(("" if o.direction == "max" else "-") + o.metric for o in task.objectives)
    measured = set(done[0].metrics) if done else set()
    outcome = [f"{c.metric} {c.relation} {c.bound!r}" for c in task.constraints if c.metric in measured]
    made.configure_optimization(objective=objective, outcome_constraints=outcome)
    if done:
        made.configure_generation_strategy(initialize_with_center=False, initialization_budget=min(5, len(done)))
    for trial in done:
        index = made.attach_trial(parameters=_ax_values(task, trial))
        made.complete_trial(trial_index=index, raw_data={k: (m.mean, m.se) for k, m in trial.metrics.items()})
    return made


def _by_exponent(parameter: Any) -> bool:
    if parameter.coding != "power_of_two":
        return False
    exponents = np.log2(parameter.column.astype(np.float64))
    return bool(np.all(np.diff(exponents) == 1))


def _ax_values(task: Task, trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in task.space.parameters:
        if len(parameter.values) < 2:
            continue
        value = trial.parameters[parameter.name]
        if _by_exponent(parameter):
            found[f"log2_{parameter.name}"] = round(float(np.log2(float(value))))
        else:
            found[parameter.name] = value
    return found


def _any(values: Any) -> Any:
    """Ax wants a list of one type, which the parameter's check has made sure of."""
    return values
