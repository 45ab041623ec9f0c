"""Calorimeter showers, drawn from the same flow layers as phase space."""
