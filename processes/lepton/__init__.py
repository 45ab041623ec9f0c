"""Lepton collisions."""
