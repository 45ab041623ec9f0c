"""How a sampler learns: survey, flows, candidates, costs and choice. Uses `samplers` and what lies below."""
