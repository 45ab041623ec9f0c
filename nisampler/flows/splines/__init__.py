"""Monotone splines and their fused kernels."""
