"""How a shower model is fitted and stored. Uses `models` and `data`."""
