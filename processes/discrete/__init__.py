"""Discrete choices of a process, such as its matrix element, drawn with learned probabilities instead of summed."""
