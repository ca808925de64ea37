"""The checks, and what is printed of those that passed."""

import contextlib

CHECKS = []
_passed = 0


def check(function):
    """Marks a function as a check. Its name is its sentence."""
    CHECKS.append(function)
    return function


@contextlib.contextmanager
def case(sentence: str):
    """One row of a table: passed when its block is, and named when it is not."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the case: {sentence}")
        raise
    ok(sentence)


def ok(sentence: str):
    global _passed
    _passed += 1
    print(f"ok: {sentence}", flush=True)


def passed() -> int:
    """How many checks and cases have passed so far."""
    return _passed
