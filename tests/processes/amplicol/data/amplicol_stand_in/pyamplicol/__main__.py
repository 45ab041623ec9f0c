"""`python -m pyamplicol generate`, of which the stand-in keeps the arguments that name processes and output."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    mode = os.environ.get("STAND_IN")
    if mode == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    if mode == "refuse":
        sys.stderr.write("ERROR pyamplicol.cli: no such vertex\n")
        return 3
    values = list(itertools.pairwise(arguments))
    output = Path(next(v for k, v in values if k == "--set").removeprefix("generation.output="))
    output.mkdir(parents=True)
    processes = [value for key, value in values if key == "--process"]
    for place in ("jit 1/2: one", "jit:one 1/1: detail", "jit 1/2: again", "jit 2/2: other"):
        sys.stderr.write(f"INFO pyamplicol.progress: generation:{place}\n")
    colour = next(value for key, value in values if key == "--color-accuracy")
    (output / "artifact.json").write_text(json.dumps({"processes": processes, "colour": colour}))
    return 0


sys.exit(main(sys.argv[1:]))
