"""What is sampled: integrands and channels. Uses `base` and `flows`."""
