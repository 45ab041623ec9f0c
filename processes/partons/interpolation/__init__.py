"""Piecewise cubic interpolation of tables, in torch and compiled; knows nothing of partons."""
