"""Samplers that know the density of every point they make. Uses `density`, `flows` and `base`."""
