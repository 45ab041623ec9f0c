"""Geometries, media and binnings."""
