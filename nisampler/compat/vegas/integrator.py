"""The integrator of vegas: iterations over an adaptive grid and strata, or over a learned flow."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields
from typing import Any, Literal, Self

import gvar
import numpy as np
import torch
import vegas
from numpy.typing import NDArray

from nisampler.base.checkpoints import part, prefixed
from nisampler.base.checks import checked
from nisampler.base.device import resolve_device
from nisampler.base.rng import Streams
from nisampler.base.weights import importance_weights
from nisampler.compat.starting import start_of
from nisampler.compat.vegas import results
from nisampler.compat.vegas.functions import Points, name_of, standard
from nisampler.compat.vegas.options import Options
from nisampler.compat.vegas.regions import Region, SamplerMap, grid_map, region_of
from nisampler.compat.vegas.strata import Batch, Strata
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, UnsupportedError
from nisampler.samplers.base import Sampler, State, UniformSampler
from nisampler.samplers.grid import VegasAdapter, VegasSampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.training.config import TrainingConfig
from nisampler.training.records import TrainingResult
from nisampler.training.trainer import Trainer

Array = NDArray[np.float64]
# The least error of an integral over its size: a constant has no other.
_ROUNDING = 1e-15
# Options that are code.
_CODE = ("analyzer", "ran_array_generator", "executor")
# Calls that a training takes at least.
_FEWEST_CALLS = 200


class Integrator:
    """Integrates functions over a region, as `vegas.Integrator` does, and remembers how it adapted.

    `integ(f, nitn=10, neval=10_000)` makes `nitn` estimates and combines them: by their errors while the grid adapts,
    as a plain mean where nothing does (`adapt=False`, or a flow). Functions of one point, batches
    (`lbatchintegrand`, `rbatchintegrand`), arrays and dictionaries are those of vegas, results its `RAvg`, `RAvgArray`
    and `RAvgDict`. The grid is that of `nisampler.samplers.grid`, whose cells stay narrow beside a peak.

    With `sampler="flow"` a call that adapts spends half of its `nitn * neval` evaluations on training a flow, and
    estimates with the frozen flow and the other half. A later call goes on with the flow where that can be, else it
    learns anew; with `adapt=False` it takes it as it is.

    Parameters
    ----------
    map
        The region: (low, high) pairs in an array of any shape or a dictionary, a `vegas.AdaptiveMap`, or another
        integrator, whose options and sampler are copied.
    options
        See `Options`. Random numbers come from `gvar.RNG`, so that `gvar.ranseed(1)` repeats a script.

    Attributes
    ----------
    sampler
        What has been learned: a `nisampler.Sampler` on the unit cube.
    training
        How the flow was trained, after a call that did.
    last_neval, neval_hcube_range
        Evaluations of the last iteration; fewest and most in a stratum.

    Raises
    ------
    ConfigError
        If the region or an option is wrong.
    UnsupportedError
        If an option of vegas is not here; it says what to use instead.

    Examples
    --------
    >>> import math
    >>> _ = gvar.ranseed(1)
    >>> integ = Integrator([[-1, 1], [0, 1]])
    >>> def f(x):
    ...     return math.exp(-100 * ((x[0] - 0.5) ** 2 + (x[1] - 0.5) ** 2)) * 100 / math.pi
    >>> training = integ(f, nitn=5, neval=1000)
    >>> result = integ(f, nitn=5, neval=1000)
    >>> abs(result.mean - 1) < 5 * result.sdev < 0.05, result.dof
    (True, 4)

    A flow by one word:

    >>> learned = Integrator([[-1, 1], [0, 1]], sampler="flow")(f, nitn=5, neval=1000)
    >>> abs(learned.mean - 1) < 5 * learned.sdev
    True
    """

    sampler: Sampler
    region: Region
    training: TrainingResult | None = None
    last_neval: int = 0
    neval_hcube_range: tuple[int, int] = (0, 0)
    _options: Options
    _strata: Strata
    _adapter: VegasAdapter | None

    def __init__(self, map: Any, **options: Any) -> None:
        if isinstance(map, Integrator):
            self._options, self.region = map._options, map.region
            self.sampler, self._adapter, self._strata = copy.deepcopy((map.sampler, map._adapter, map._strata))
            self.set(options)
        else:
            self._options, self.region = Options().changed(options), region_of(map)
            self._strata = Strata(self._options, self.dim)
            self._restart()

    def set(self, ka: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Change options, also the region by the name `map`; gives the old values of those that changed.

        Raises
        ------
        ConfigError, UnsupportedError
            As the integrator does.
        """
        wanted, before = {**options, **(ka or {})}, self._options
        old = {"map": self.map} if "map" in wanted else {}
        region = region_of(wanted.pop("map")) if old else self.region
        new = before.changed(wanted)
        old |= {f.name: value for f in fields(Options) if (value := getattr(before, f.name)) != getattr(new, f.name)}
        strata = Strata(new, len(region.limits))
        if np.array_equal(strata.nstrat, self._strata.nstrat):
            strata.sigma = self._strata.sigma
        self._options, self._strata, self.region = new, strata, region
        if old.keys() & {"map", "sampler"}:
            self._restart()
        return old

    def _restart(self) -> None:
        """Forget what was learned."""
        given = self._options.sampler
        self._adapter = VegasAdapter(self.dim, self._increments, nodes=self.region.nodes) if given == "vegas" else None
        self.sampler = UniformSampler(self.dim)
        if self._adapter is not None:
            self.sampler = VegasSampler(self._adapter.grid())
        elif isinstance(given, Sampler):
            if given.dim != self.dim:
                raise ConfigError(f"the sampler has dimension {given.dim}, the region {self.dim}: they must agree")
            self.sampler = given

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.get("_options")
        if options is not None and not name.startswith("_") and hasattr(options, name):
            return getattr(options, name)
        if name in dir(vegas.Integrator) and not name.startswith("_"):
            raise UnsupportedError(f"{name} of vegas.Integrator is not here: use sampler, map, nstrat or settings()")
        raise AttributeError(f"an integrator has no {name}")

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.region.limits)

    @property
    def xsample(self) -> Any:
        """A point of the region as functions get it."""
        return self.region.sample

    @property
    def nstrat(self) -> Any:
        """Strata of each axis."""
        return self._strata.nstrat

    @property
    def nhcube(self) -> int:
        """Number of strata."""
        return self._strata.count

    @property
    def min_neval_hcube(self) -> int:
        """Fewest evaluations in a stratum."""
        return self._strata.least

    @property
    def sigf(self) -> Array:
        """By what the evaluations are shared among the strata (nhcube,)."""
        return self._strata.sigma

    @property
    def map(self) -> Any:
        """What maps the unit cube to the region: a `vegas.AdaptiveMap` of the grid, or a `SamplerMap` of a flow."""
        if isinstance(self.sampler, VegasSampler):
            return grid_map(self.sampler.grid.nodes, self.region.limits)
        return SamplerMap(self.sampler, self.region.limits)

    def settings(self, ngrid: int = 0) -> str:
        """The options in a few lines, with `ngrid` nodes of each axis of the grid."""
        o, strata = self._options, self._strata
        least, most = strata.least, max(o.max_neval_hcube, strata.least)
        damping = (o.alpha, o.beta if strata.moves else 0.0) if o.adapt else (0.0, 0.0)
        lines = [
            "Integrator Settings:",
            f"    {o.neval} (approx) integrand evaluations in each of {o.nitn} iterations",
            f"    sampler = {self.sampler.describe()}",
            f"    number of: strata/axis = {strata.nstrat}  h-cubes = {strata.count}",
            f"               evaluations/batch >= {o.min_neval_batch}  {least} <= evaluations/h-cube <= {most}",
            f"    adapt = {o.adapt}  adapt_to_errors = {o.adapt_to_errors}  uses_jac = {o.uses_jac}",
            f"    accuracy: relative = {o.rtol:g}  absolute = {o.atol:g}",
            f"    damping: alpha = {damping[0]:g}  beta = {damping[1]:g}",
            *(f"    axis {axis}: ({low:.5g}, {high:.5g})" for axis, (low, high) in enumerate(self.region.limits)),
        ]
        return "\n".join(lines) + "\n" + (f"\n{self.map.settings(ngrid=ngrid)}" if ngrid > 0 else "")

    def __call__(self, fcn: Any, save: Any = None, saveall: Any = None, **options: Any) -> Any:
        """Integrate a function.

        Parameters
        ----------
        fcn
            Of one point, or of batches where it is decorated so; its numbers, arrays or dictionaries of them are
            integrals of their own, of which the first one is adapted to.
        save, saveall
            Files and folders that hold the result, or the result and this integrator, after each iteration; `load`
            reads them. They are JSON and safetensors.
        options
            To be changed before, see `Options`.

        Returns
        -------
        vegas.RAvg, vegas.RAvgArray or vegas.RAvgDict
            A number with an error, or several; with `itn_results`, `chi2`, `dof`, `Q`, `sum_neval` and `summary()`.

        Raises
        ------
        IntegrandCallError, NonFiniteError
            If the function raises, or returns NaN or infinity.
        ConfigError, UnsupportedError
            As the integrator does.
        """
        self.set(options)
        results.check(save, saveall)
        form = self._make_std_integrand(fcn)
        grid = (lambda: self.map) if self._options.uses_jac else None
        function = Points(form, grid, name_of(fcn))
        integrand = Integrand(function, domain=self.region.limits.tolist(), kind="numpy")
        executor = self._options.executor
        with nullcontext(integrand) if executor is None else integrand.sharing(executor) as shared:
            return self._iterate(form, shared, save, saveall)

    def _make_std_integrand(self, fcn: Any, xsample: Any = None) -> vegas.VegasIntegrand:
        """A function of any of the kinds of vegas as one of batches; by the name that vegas has for it."""
        return standard(fcn, self.xsample if xsample is None else xsample, self._options.uses_jac)

    def _iterate(self, form: vegas.VegasIntegrand, integrand: Integrand, save: Any, saveall: Any) -> Any:
        """The iterations of a call, after the training of a flow."""
        options, strata, adapts = self._options, self._strata, self._options.adapt and self._adapter is not None
        if options.uses_jac and not (isinstance(self.sampler, VegasSampler) and options.executor is None):
            raise UnsupportedError("uses_jac needs the grid of this process: leave out sampler and executor")
        result = results.empty(form, weighted=adapts)
        if options.adapt and options.sampler == "flow":
            strata = Strata(options.changed({"neval": max(2, options.neval // 2)}), self.dim)
            self._learn(integrand, options.nitn * (options.neval - strata.options.neval))
            result.sum_neval = integrand.calls
        for number in range(options.nitn):
            if options.analyzer is not None:
                options.analyzer.begin(number, self)
            mean, covariance = self._iteration(integrand, strata, adapts)
            errors = covariance if options.correlate_integrals else covariance.diagonal()
            result.add(form.format_result(mean, errors))
            result.sum_neval += self.last_neval
            if options.analyzer is not None:
                options.analyzer.end(result.itn_results[-1], result)
            if save is not None or saveall is not None:
                results.store(self._finished(result), save, saveall, self.state)
            if result.converged(options.rtol, options.atol):
                break
        return self._finished(result)

    def _finished(self, result: Any) -> Any:
        """What a user gets of the averages."""
        return result

    def _learn(self, integrand: Integrand, calls: int) -> None:
        """Train a flow, from the one that is there where that is possible."""
        start = start_of(self.sampler)
        streams = Streams(int(2**62 * float(self._random((1,))[0])))
        config = TrainingConfig(calls=max(_FEWEST_CALLS, calls), sampler="auto" if start else "flow")
        device = resolve_device(self._options.device)
        self.training = Trainer(integrand, config, streams, device, start=start).fit()
        self.sampler = self.training.sampler

    def _iteration(self, integrand: Integrand, strata: Strata, adapts: bool) -> tuple[Array, Array]:
        """One estimate (k,) with its covariance (k, k), after which grid and strata have learned."""
        options, adapter = self._options, self._grown() if adapts else None
        mean, covariance = np.zeros(1), np.zeros((1, 1))
        variances, places, sizes = list[Array](), list[Array](), list[Array]()
        for batch, x, log_q in self._points(strata):
            values = importance_weights(integrand.values(x), log_q).cpu().numpy()
            total, spread, variance = batch.sums(values)
            mean, covariance = mean + total, covariance + spread
            variances.append(variance)
            if adapter is not None:
                errors = options.adapt_to_errors
                places.append(batch.y[np.cumsum(batch.counts) - 1] if errors else batch.y)
                sizes.append(np.sqrt(np.maximum(variance, 0.0)) if errors else values[:, 0])
        if options.adapt:
            strata.learn(np.concatenate(variances))
        if adapter is not None and options.alpha > 0.0:
            adapter.alpha = options.alpha
            adapter.add(torch.from_numpy(np.concatenate(places)), torch.from_numpy(np.concatenate(sizes)))
            adapter.refine()
            self.sampler = VegasSampler(adapter.grid())
        floor = np.maximum(covariance.diagonal(), (_ROUNDING * mean) ** 2)
        np.fill_diagonal(covariance, floor)
        return mean, covariance

    def state(self) -> State:
        """Tensors and JSON metadata from which `from_state` makes the same integrator, but for code it was given."""
        tensors, meta = self.sampler.state()
        own = {"limits": torch.from_numpy(self.region.limits), "sigma": torch.from_numpy(self._strata.sigma)}
        options = {f.name: getattr(self._options, f.name) for f in fields(Options) if f.name not in _CODE}
        if isinstance(options["sampler"], Sampler):
            options["sampler"] = "given"
        sample = self.region.sample
        keys = [[k, list(np.shape(sample[k]))] for k in sample] if isinstance(sample, gvar.BufferDict) else None
        shape = [] if keys else list(sample.shape)
        return own | prefixed(tensors, "sampler."), {"sampler": meta, "options": options, "keys": keys, "shape": shape}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """The integrator whose `state` this is."""
        sampler, options = sampler_from_state(part(tensors, "sampler."), meta["sampler"]), dict(meta["options"])
        if options["sampler"] == "given":
            options["sampler"] = sampler
        limits = tensors["limits"].numpy()
        layout = {key: (*shape, 2) for key, shape in meta["keys"] or []}
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in layout.values())]) // 2
        region = {k: limits[a:b].reshape(s) for (k, s), a, b in zip(layout.items(), ends, ends[1:], strict=False)}
        integrator = cls(region or limits.reshape(*meta["shape"], 2), **options)
        integrator.sampler, integrator._strata.sigma = sampler, tensors["sigma"].numpy()
        if isinstance(sampler, VegasSampler) and integrator._adapter is not None:
            nodes = sampler.grid.nodes
            integrator._adapter = VegasAdapter(integrator.dim, integrator._increments, nodes=nodes)
        return integrator

    def _grown(self) -> VegasAdapter:
        """What refines the grid, with as many cells as the options ask for."""
        adapter = self._adapter
        if adapter is None or adapter.increments != self._increments:
            nodes = self.sampler.grid.nodes if isinstance(self.sampler, VegasSampler) else None
            adapter = VegasAdapter(self.dim, self._increments, nodes=nodes)
        self._adapter = adapter
        return adapter

    @property
    def _increments(self) -> int:
        return max(2, min(self._options.neval // 10, self._options.maxinc_axis))

    @property
    def _random(self) -> Any:
        return self._options.ran_array_generator or gvar.RNG.random

    def _points(self, strata: Strata) -> Iterator[tuple[Batch, torch.Tensor, torch.Tensor]]:
        """The points of an iteration, in the unit cube, with their log densities."""
        counts = strata.counts()
        self.last_neval, self.neval_hcube_range = int(counts.sum()), (int(counts.min()), int(counts.max()))
        for batch in strata.batches(self._random):
            yield batch, *self.sampler.map(torch.from_numpy(batch.y))

    def random_batch(self, yield_hcube: bool = False, yield_y: bool = False) -> Iterator[tuple[NDArray[Any], ...]]:
        """The points of one iteration in batches: x (n, dim), and the weights (n,) with which functions are summed.

        With `yield_y` the points of the latent cube come between the two, with `yield_hcube` the numbers of the strata
        (n,) at the end.

        >>> integ = Integrator([[0, 2]])
        >>> round(sum(float(wgt @ x[:, 0]) for x, wgt in integ.random_batch()), 2)
        2.0
        """
        low, width = self.region.limits[:, 0], np.diff(self.region.limits).T[0]
        for batch, x, log_q in self._points(self._strata):
            weights = width.prod() * batch.share * np.exp(-log_q.cpu().numpy())
            y, hcube = (batch.y,) if yield_y else (), (batch.stratum,) if yield_hcube else ()
            yield low + width * x.cpu().numpy(), *y, weights, *hcube

    def random(self, yield_hcube: bool = False, yield_y: bool = False) -> Iterator[tuple[Any, ...]]:
        """What `random_batch` gives, point by point."""
        for batch in self.random_batch(yield_hcube, yield_y):
            yield from zip(*batch, strict=True)

    def sample(self, nbatch: int | None = None, mode: str = "rbatch") -> tuple[Array, Any]:
        """Weights (n,) and points of whole iterations, at least `nbatch` of them, as batches of this mode."""
        checked("mode", mode, Literal["rbatch", "lbatch"])
        weights, points = list[Array](), list[Array]()
        iterations = max(1, -(-int(nbatch or 0) // (self.last_neval or self.neval)))
        for _ in range(iterations):
            for x, wgt in self.random_batch():
                points.append(x)
                weights.append(wgt / iterations)
        x, sample = np.concatenate(points), self.xsample
        if isinstance(sample, gvar.BufferDict):
            made = {"rbatch_buf": x.T} if mode == "rbatch" else {"lbatch_buf": x}
            return np.concatenate(weights), gvar.BufferDict(sample, **made)
        shape = (*sample.shape, -1) if mode == "rbatch" else (-1, *sample.shape)
        return np.concatenate(weights), (x.T if mode == "rbatch" else x).reshape(shape)
