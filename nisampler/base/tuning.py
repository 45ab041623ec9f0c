"""The numbers that steer training, choice, integration and unweighting, each with its source.

They are no settings: nobody needs to change them, and the results stay unbiased whatever they are. Where a number comes
from a paper its arXiv id is given, where a script of `benchmarks/` measures it that script. Most were chosen by hand:
then the script is named whose result would show a better value. Tolerances of tests and of pure arithmetic stand where
they are used.
"""

from __future__ import annotations

# Survey and VEGAS

SURVEY_SHARE, SURVEY_ITERATIONS = 1 / 12, 10
"""Share of the calls for the survey, and its iterations. Chosen; `benchmarks/integrals.py` would show it."""
TRAINING_SHARE, VEGAS_ITERATIONS = 0.8, 9
"""Share of the calls before the comparison, the rest tells candidates apart; iterations of a training by VEGAS alone.
Chosen; `benchmarks/integrals.py` would show it."""
NOTHING_TO_GAIN, ESS_SATURATED = 0.97, 0.999
"""Efficiency at 0.1 % overweight, and ESS fraction, from which on VEGAS alone will do. Chosen;
`benchmarks/integrals.py` would show it."""
HOPELESS_ESS, FEWEST_EFFECTIVE = 5e-4, 10.0
"""The grid goes under the flow where uniform points have a smaller ESS fraction, or fewer effective points. Chosen;
`benchmarks/integrals.py` would show it."""
POINTS_IN_CELL, FEWEST_CELLS = 20, 16
"""Points in a cell of a grid on average, and fewest cells. Chosen; `benchmarks/integrals.py` would show it."""
CELLS_OF_POINTS = 0.5
"""Most cells of an axis as a share of the points over the axes: what cells have learned from noise multiplies over the
axes, to a relative variance of the weights of about a quarter of this number. Chosen for that to stay near a tenth."""
CELLS_UNDER_FLOW = 64
"""Cells of a smooth grid under the flows of channels. Chosen; `benchmarks/multichannel.py` would show it."""
STEEPEST_CELLS = 4.0
"""How many times wider than its neighbour a cell of a grid may be. Chosen; `benchmarks/integrals.py` would show it."""

# Density trees

TREE_FEWEST, TREE_ORDERS = 1000, (2.0, 4.0, 8.0)
"""Fewest points to grow a tree, and the moment norms that are tried. Chosen; `benchmarks/unweighting.py` would show
it."""
REPLAY = 300_000
"""Stored points of a training that a tree may learn from. Chosen; `benchmarks/unweighting.py` would show it."""
EXPLORED, EXPLORED_TRAINING, EXPLORED_SHARE = 3, 0.4, 0.85
"""Most coordinates with which a tree explores its leaves, share of the calls before the trees there, and share of the
points of trees that are thrown where they are needed. Chosen: annulus and circles gain, from five coordinates on
nothing does; `benchmarks/integrals.py` would show it."""
EXPLORED_LEAVES, ROUNDS = (10, 3.0), 8
"""Fewest points and pseudo-points of a leaf that is explored, and number of rounds. Chosen;
`benchmarks/integrals.py` would show it."""

# Comparison of the candidates

CANDIDATE_MARGIN = 1.01
"""A later candidate must be better by this factor. Chosen; `benchmarks/unweighting.py` would show it."""
LOST_ERRORS = 5.0
"""One whose integral is lower by so many standard errors has lost a region. Chosen: it rejects a right one with a
probability below 1e-6."""
ESS_KEPT = 0.98
"""A better one must keep this much of the ESS fraction: with heavy tails an efficiency of few points may be luck.
Chosen; `benchmarks/unweighting.py` would show it."""
PRICE_OF_MIXTURE = 1.1
"""Factor that the efficiency must gain for a sampler to evaluate every channel for each point. Chosen;
`benchmarks/multichannel.py` would show it."""

# Training of flows

WARM_UP, TRIAL, TAIL = 0.08, 0.16, 0.75
"""Shares of the steps: forward KL at the start, trial of two networks, and where the tail divergence begins. Chosen;
`benchmarks/integrals.py` would show it."""
TRIAL_RATED, TRIAL_DECIDED = 0.08, 4.0
"""The share of the steps from which on the networks of a trial are compared, and the lead in batches, in units of the
root of their number, that ends it. Chosen; `benchmarks/integrals.py` would show it."""
TRIAL_FOURIER = 4
"""Fourier features of the second network of the trial. Chosen; `benchmarks/integrals.py` would show it."""
INITIAL_GAIN = (3.0**0.5, 1.0)
"""Of the initial weights of the networks, of one flow and of those of channels: with √3 unit inputs keep their
variance, which helps one flow and ruins W + 3 jets, whose flows have few points each. `benchmarks/learning.py` measures
it."""
REUSE, REUSE_FROM = (1, 3), 8e-6
"""Steps on stored points for each on fresh ones: of one flow, and where the flows of several channels share the calls,
a call costs so many seconds, or no events are to be made: three of them save half of the calls and take up to 1.7 times
longer. `benchmarks/learning.py` measures it; the idea is that of 2212.06172."""
STORED_POINTS = (1, 2)
"""Points of a step on stored points over those of one on fresh ones: of one flow, and of the flows of several channels,
which share them. They cost no calls, and twice as many hardly more time. `benchmarks/learning.py` measures it."""
CHANNEL_STEPS, CHANNEL_STEPS_QUICK = 2000, 800
"""Calls over those of a batch for channels: where efficiency counts, and where the time to the events does.
`benchmarks/end_to_end.py` measures it."""
DRAWN_TOGETHER = (8, 80)
"""Most batches of fresh points that are drawn together, and least times that points are drawn in a training. Each
point is stored with the density that it was drawn from. Chosen; `benchmarks/training_step.py` would show it."""
TAIL_ORDERS, TAIL_COUNTS = (4.0, 30.0), 30.0
"""Lowest and highest order of the Rényi divergence for the tail, and what a weight at the edge of the tail counts.
Chosen; `benchmarks/unweighting.py` would show it."""
WINDOWS, WINDOW_POINTS = 50, 2000
"""Number of windows that a training is measured in, and fewest points of one. Chosen, for a smooth picture."""
NORM_MEMORY = 0.98
"""Weight of the past in the running integral of |f|. Chosen; `benchmarks/integrals.py` would show it."""
COLLAPSE, DISCOVERY = 0.1, 1.2
"""A quality below this share of the best one is a collapse, unless the integral grew by the second factor: a new peak.
Chosen; no benchmark collapses."""
ROLLED_BACK_RATE, MOST_ROLL_BACKS = 0.3, 5
"""What a roll-back makes of the learning rate, and how many are tried, for flows and for showers. Chosen; no benchmark
diverges."""
EFFICIENCY_SATURATED = 0.99
"""Efficiency at 0.1 % overweight that leaves next to nothing to gain. Chosen; `benchmarks/integrals.py` would show
it."""
TELLING_POINTS = 10.0
"""Effective points without which a measured quality tells nothing. Chosen: the error is then a third."""
RESTORE_BEST = 0.8
"""Below this share of its best quality a training ends with its best moment. Chosen; no benchmark ends so."""
LARGEST_VALUE = 1e30
"""Largest value of the scaled integrand, whose square must fit single precision with its weight. Arithmetic."""

# Channels

LEAST_SHARE, SHARE_FOLLOWS = 0.1, 0.5
"""Least share of a channel in units of an equal one, and how far shares move to what is found. Chosen; the shares
themselves are those of 2311.01548; `benchmarks/multichannel.py` would show it."""
LEAST_SHARES = (0.01, 0.1)
"""Least share while flows are trained, in these units: when shares freeze, and what is added at the start. Chosen;
`benchmarks/multichannel.py` would show it."""
LEAST_UNWEIGHTING_SHARE = 0.01
"""Least share for unweighting, in the same units. Chosen; `benchmarks/multichannel.py` would show it."""
FEATURE_POINTS = 4096
"""Points that the scales of the features of channel weights are taken from. Chosen: means to a hundredth."""

# Choice of a sampler for a number of events

SMALL_FLOW = (2, 32)
"""Layers and hidden units of the small flow. Chosen; `benchmarks/end_to_end.py` would show it."""
SURVEY_OF_EVENTS, SURVEY_FEWEST = 0.1, 5000
"""Calls of the survey as a share of the events, and fewest. Chosen; `benchmarks/end_to_end.py` would show it."""
VEGAS_OF_POINTS, FINISH_OF_POINTS, FINISH_FEWEST = 0.1, 0.1, 4000
"""Calls of VEGAS, and of trees and comparison, as shares of the points of the generation, and fewest of the latter.
Chosen; `benchmarks/end_to_end.py` would show it."""
PILOT_OF_POINTS, PILOT_QUICK = 0.02, 4000
"""Calls that tell what VEGAS and a tree are worth, as a share of these points, and where VEGAS is quick. Chosen;
`benchmarks/end_to_end.py` would show it."""
TREE_TIME = 0.03
"""Most time for growing trees as a share of that for the events, for each factor e that the efficiency may rise by.
Chosen; `benchmarks/end_to_end.py` would show it."""
WORTH_A_FLOW, QUICK_MACHINE = 20.0, 2.0
"""Seconds of VEGAS below which no flow is considered, as its first steps may compile something; how many times less
than by default things may cost on a quick machine. Chosen; `benchmarks/end_to_end.py` would show it."""
ASSUMED_CALL = 5e-6
"""Seconds of a call of a process that states none: of a simple matrix element with parton densities on one core of a
server: those of `examples/` take 2e-6 to 6e-6. `benchmarks/end_to_end.py` measures them."""
OPERATION = 1.6e-9
"""Seconds of an operation of a matrix element, which a call takes besides where an amplitude tells how many it has.
`benchmarks/discrete.py` measures it: 1.5e-9 to 1.8e-9 where elements of W + 2 and 3 jets and t t~ j j are summed."""
LEAST_CALL = {"torch": 2e-7, "numpy": 2e-7, "scalar": 2e-6}
"""Seconds of a call of a function that states none, by its kind: low, since one that is dearer only makes flows pay
more. So no job takes much longer than it does with VEGAS. `benchmarks/budgets.py` measures that."""
FLOW_SPREAD, SPREAD_OF_CALLS = 0.01, 250.0
"""Relative variance of the weights that a flow reaches: the first number, and the second times the squared dimension
over the calls of its training. Fitted once to test functions; `benchmarks/integrals.py` measures it."""
EVENNESS = 5.0
"""How much more the variance of an integral gains from even points with VEGAS, where there is more left of it, than
with a flow. Chosen: 5 to 100 were seen; `benchmarks/integrals.py` would show it."""
FLOW_MARGIN = 1.3
"""A flow must be so much quicker, as its efficiency is only expected. Chosen; `benchmarks/end_to_end.py` would show
it."""
REHEARSED = 2048
"""Points of a flow that is timed. Chosen, for a measurement of some milliseconds."""
HALF_WAY, SHARED_HALF_WAY = (25_000.0, 32_000.0), 1.2
"""Efficiency of a flow, e_flow = e_vegas^γ: γ falls from 1 to 0, and is half way there after so many calls for a flow
of the size that is configured, or a small one; several flows that share the calls take more for each, by the last
number. `benchmarks/planner.py` fits them to what `benchmarks/learning.py` has measured."""
EFFICIENCY_WITHIN = 1.25
"""Factor within which an efficiency mostly is as expected; measured there too."""
LEAST_TRAINING = 16_000
"""Fewest calls of the training of a flow. Chosen; `benchmarks/end_to_end.py` would show it."""
COST_STEP, COSTS_KEPT = 2.0**0.5, 5
"""Measured seconds are rounded to powers of the first number; the last so many measurements count. Chosen, so that two
measurements mostly agree."""

# Integration

INTEGRATION_FEWEST, INTEGRATION_MOST, INTEGRATION_OF_POINTS = 2**14, 1_000_000, 0.1
"""Fewest and most points of an integration before a generation, and their share of its points. Chosen;
`benchmarks/end_to_end.py` would show it."""
INTEGRATION_POINTS, FEWEST_BATCHES = 1_000_000, 24
"""Points of an integration by default, and its fewest batches: their means give the error, and with 24 of them it is
known to 15 %. Chosen; `benchmarks/integrals.py` would show it."""
LARGEST_SKEW, LARGEST_EXCESS = 0.1, 0.15
"""An error is not trusted where the mean of the weights is more skewed, so that deviations are -1/20 of their error on
average, or where the kurtosis leaves the variance more uncertain. `benchmarks/calibration.py` measures what that
marks, and what it misses."""
HEAVY_TAIL, TAIL_EXCESS = 0.7, 0.1
"""Nor where the shape of the tail is above the first number, the limit of 1507.02646, and the tail matters, as it
leaves the variance more uncertain than the second. `benchmarks/calibration.py` measures it."""
LARGEST_SPREAD = 0.25
"""A single point is named in the warning where it makes up so much of the sum of squared deviations. Chosen."""
SCOUTS = 0.05
"""Uniform points at the end of a training, as a share of its calls: they meet peaks that the grids have left behind.
Chosen; `benchmarks/calibration.py` would show it."""
REMEMBERED = 16
"""Points with the largest weights that are remembered of each iteration or window of a training, for the integration to
be compared with. Chosen; `benchmarks/calibration.py` would show it."""
POINTS_TOGETHER = 8192
"""Points of small batches that are evaluated together, for speed alone. Chosen; `benchmarks/growth.py` would show
it."""
OVERWEIGHT, OVERWEIGHT_POINTS = 1e-3, 5.0
"""The overweight that an integration must be able to measure, and points above w_max that tell it. Chosen."""

# Unweighting

EVENT_BATCH_LARGEST, EVENT_BATCH_EVENTS = 65_536, 8192
"""Most points whose random numbers belong together, and events that they are to give. Chosen; `benchmarks/growth.py`
would show it. Other numbers give other events."""
EVENT_SLICE_LEAST, EVENT_SLICE_CPU = 256, 16_384
"""Points that are evaluated at once: in multiples of the first number, and on a CPU no more than fit its caches.
Chosen; `benchmarks/growth.py` would show it."""
PATIENCE = 1000.0
"""How many times the trials that are expected end a generation with an error. Chosen: no honest one gets there."""
BOOTSTRAPS = 101
"""Resampled sets of points behind the bootstrap policy of w_max (2001.10028). Chosen, odd for a median."""

# Two stages (2109.11964)

HELD_OUT, SURROGATE_POINTS = 0.25, 2**20
"""Share of the points that is held out for the maxima, and most points of an integration to use. Chosen;
`benchmarks/two_stage.py` would show it."""
SURROGATE_STEP, SURROGATE_POINT, COSTLY_CALL = 2e-3, 2e-5, 1e-3
"""Seconds of a training step and of the surrogate on one core of a server, and of a call where nothing is known of it.
`benchmarks/two_stage.py` measures the first two."""
SURROGATE_CUTS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Shares of the surrogate's sum that may lie above s_max: the quickest of these is taken. Chosen;
`benchmarks/two_stage.py` would show it."""
SURROGATE_LEAST_STEPS, SURROGATE_MOST_STEPS, SURROGATE_PASSES = 1000, 20_000, 80
"""Fewest and most steps of a surrogate, and how often each point is seen in between. Chosen;
`benchmarks/two_stage.py` would show it."""
SURROGATE_SQUARED = 0.5
"""Share of the steps with the squared logarithm as loss, before the Rényi divergence. Chosen;
`benchmarks/two_stage.py` would show it."""
SURROGATE_EMPHASIS, SURROGATE_EVEN = 0.5, 0.1
"""Points are drawn for a step by this power of their weights, and the second share of them evenly. Chosen;
`benchmarks/two_stage.py` would show it."""
SURROGATE_WARM_UP, SURROGATE_CLIP = 100, 1.0
"""Steps of warming up, and largest norm of a gradient. Chosen; `benchmarks/two_stage.py` would show it."""
SURROGATE_FEWEST = 256
"""Fewest points with a non-zero weight to learn from. Chosen: fewer tell nothing of a tail."""
