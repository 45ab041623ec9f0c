"""Faces of other packages: scripts for vegas and madnis run on nisampler. Uses everything up to `api`."""
