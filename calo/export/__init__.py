"""Fitted models as files that other programs run. Uses `models`, `fitting` and `detector`."""
