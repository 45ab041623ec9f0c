"""`python -m nisampler`: the same as the command `nisampler`."""

from __future__ import annotations

from nisampler.cli import main

if __name__ == "__main__":
    main()
