"""Tree amplitudes of the Standard Model by recursion over subsets of legs: a plan in tables, run on tensors."""
