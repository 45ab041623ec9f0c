"""What tests let another process do; a process that starts afresh finds this folder on its path."""

from __future__ import annotations

import multiprocessing

import torch

from nisampler.flows import Flow


def densities(flow: Flow) -> tuple[str, list[float]]:
    """The process that draws three points, and their log densities."""
    context = None if not flow.context_dim else torch.ones(flow.context_dim)
    with torch.no_grad():
        log_prob = flow.sample(3, context, torch.Generator().manual_seed(1))[1]
    return str(multiprocessing.current_process().pid), log_prob.tolist()
