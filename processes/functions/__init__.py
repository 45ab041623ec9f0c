"""Test functions with known integrals."""
