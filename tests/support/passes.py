"""Which parameters of a test are tried in which pass of tests/run."""

import pytest


def sanitized_only_for(kept, values):
    """Parameters for parametrize(): the pass with sanitizers takes those of `kept`, because the
    others run through the same code at another moment; the pass on the release build takes all."""
    kept = [one if isinstance(one, tuple) else (one,) for one in kept]
    made = []
    for value in values:
        given = value if isinstance(value, tuple) else (value,)
        marks = [] if given in kept else [pytest.mark.release_only]
        made.append(pytest.param(*given, marks=marks))
    assert sum(not one.marks for one in made) == len(kept), "a parameter that is not there is kept"
    return made
