"""Unweighted events of a frozen sampler, in shards and finished files."""
