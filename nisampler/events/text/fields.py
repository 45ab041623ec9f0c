"""What follows a piece of text in a template."""

NOTHING, INTEGER, REAL = 0, 1, 2
