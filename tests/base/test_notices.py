"""Lines about what takes long: told if it does, once, and to the one who listens."""

from __future__ import annotations

from nisampler.base.notices import if_slow, listening


def slow(text: str) -> None:
    with if_slow(text, 0.0) as timer:
        timer.join()


def test_the_inner_listener_is_told_once() -> None:
    outer: list[str] = []
    inner: list[str] = []
    slow("nobody listens")
    with listening(outer.append):
        with listening(inner.append):
            slow("compiling")
            slow("compiling")
            slow("reading")
        slow("writing")
        with if_slow("quick", 60.0) as timer:
            pass
        timer.join()
    slow("nobody listens any more")
    assert (inner, outer) == (["compiling", "reading"], ["writing"])
