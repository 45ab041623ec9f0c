"""From weighted points to unit weights, in one stage or two. Uses `training`, `integration` and what lies below."""
