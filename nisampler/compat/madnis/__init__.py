"""The face of madnis (2212.06172, 2311.01548): its integrands are trained and integrated here.

`as_integrand` takes an integrand of madnis, or anything with its attributes, to `nisampler.integrate`, which knows all
that this package does. `Integrator` has the methods of madnis' own, for scripts with one changed import,
`from nisampler.compat.madnis import Integrand, Integrator`; these need no madnis.

| madnis | here |
|---|---|
| `Integrand(function, input_dim, channel_count, ...)` | `as_integrand(it)`, a `nisampler.Integrand` |
| `Integrator(integrand)` | `nisampler.integrate(as_integrand(integrand))` makes all steps |
| `train(steps)` of `batch_size` points | `TrainingConfig(calls=steps * batch_size)` |
| `callback(TrainingStatus)` | `callback(nisampler.training.records.Progress)` |
| `integrate(n)` | `IntegrationConfig(points=n)`; `result.estimate` |
| `sample(n)`: `x`, `weights` | `result.sample(n)`: `u`, `weights` |
| `unweighting_metrics(n)` | `result.efficiencies`; `result.unweight(n)` draws the events |
| `flow_kwargs`: `bins`, `layers`, `units` | `FlowSettings(bins=, layers=, hidden=)` |
| `loss`, `optimizer`, `learning_rate` | `FlowSettings(divergence=, optimizer=, learning_rate=)` |
| `buffer_capacity`, `buffered_steps` | `FlowSettings(buffer=, reuse=)` |
| `train_channel_weights`, `channel_dropping_threshold` | `ChannelSettings(learned_weights=, drop=)` |
| `freeze_cwnet_iteration` | `ChannelSettings(freeze=)`, a fraction of the steps |
| `channel_grouping` | `groups` of `nisampler.Multichannel`: channels of one group share a flow |
| `VegasPreTraining` | every training begins with VEGAS grids |
"""

from nisampler.compat.madnis.integrand import ChannelGrouping, Integrand, as_integrand
from nisampler.compat.madnis.integrator import Integrator
from nisampler.compat.madnis.records import IntegrationMetrics, SampleBatch, UnweightingMetrics

__all__ = [
    "ChannelGrouping",
    "Integrand",
    "IntegrationMetrics",
    "Integrator",
    "SampleBatch",
    "UnweightingMetrics",
    "as_integrand",
]
