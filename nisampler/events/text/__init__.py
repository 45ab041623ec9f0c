"""Event files as text, in bulk: numbers to digits and digits to numbers, compiled where numba is installed."""
