"""A whole chain of coupling blocks as one operation on a CPU, with a backward pass of its own."""
