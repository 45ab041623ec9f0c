"""Processes: test functions with exact integrals, kinematics, phase-space maps and matrix elements."""
