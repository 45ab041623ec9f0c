"""Showers as vectors for a flow, every step with its exact Jacobian. Uses `detector`."""
