"""Hadron collisions: cuts, scales, parameters, observables and event records."""
