"""Jets as sets of constituents: files, models, metrics; a neighbour of showers that shares their training."""
