"""Integrals with frozen samplers. Uses `samplers` and what lies below."""
