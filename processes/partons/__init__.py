"""Parton densities, running coupling and luminosities."""
