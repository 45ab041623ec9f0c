"""Networks that condition a transform: MLPs, U-Nets, vision transformers, velocities, Bayesian layers."""
