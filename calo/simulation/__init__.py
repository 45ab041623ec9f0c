"""The built-in simulator. Uses `data` and `detector`."""
