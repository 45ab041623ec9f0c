"""Showers and their files. Uses `detector`."""
