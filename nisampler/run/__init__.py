"""Runs: the card that describes one, the directory that holds it, its stages, its report."""
