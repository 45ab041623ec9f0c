"""Random streams, files, numbers with errors, weights, devices, the gradient step. Uses `nisampler.errors` alone."""
