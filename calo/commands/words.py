"""Files by name, and how large they are: what several commands say."""

from __future__ import annotations

from pathlib import Path


def groups(option: str, given: list[str]) -> dict[str, list[Path]]:
    """Files by name from NAME=FILE.

    Raises
    ------
    ConfigError
        If a text is none.

    Examples
    --------
    >>> groups("--band", ["a=1.h5", "a=2.h5"])["a"][1].name
    '2.h5'
    """
    from nisampler.errors import ConfigError

    found: dict[str, list[Path]] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"{option} must be NAME=FILE, got {text!r}")
        found.setdefault(name, []).append(Path(file))
    return found


def pairs(option: str, given: list[str]) -> dict[str, Path]:
    """A file by name from NAME=FILE, each name once.

    Raises
    ------
    ConfigError
        If a text is none, or a name comes twice.

    Examples
    --------
    >>> pairs("--timing", ["a=1.json"])["a"].name
    '1.json'
    """
    from nisampler.errors import ConfigError

    found = groups(option, given)
    for name, files in found.items():
        if len(files) > 1:
            raise ConfigError(f"{option} must be NAME=FILE with names that differ, got {name!r} {len(files)} times")
    return {name: file for name, (file,) in found.items()}


def size(path: Path) -> str:
    """A file and its size, for tables.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     size(Path(file.name)).endswith(" (0.0 MB)")
    True
    """
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"


def beside(points: float, energy: float) -> str:
    """Shares of points and of their energy that lie beside all cells.

    >>> beside(0.02, 0.001)
    '2 % of the points, 0.1 % of the energy'
    """
    return f"{100 * points:.2g} % of the points, {100 * energy:.2g} % of the energy"
