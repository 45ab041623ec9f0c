"""The loop over a plan's table as machine code that comes with the package; may use the recursion and `flows`."""
