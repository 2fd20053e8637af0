"""How what went wrong in the app reaches the test that caused it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["raise_as_it_is", "report"]


def report(problems: Sequence[Exception], failure: BaseException | None) -> None:
    """Raise what is wrong, or note it on the ``failure`` that is on its way already.

    One problem leaves as itself, several as a group.
    """
    if not problems:
        return
    if failure is not None:
        for problem in problems:
            failure.add_note("Besides:\n" + "".join(traceback.format_exception(problem)).rstrip())
    elif len(problems) == 1:
        raise_as_it_is(problems[0])
    else:
        raise ExceptionGroup("found when the test client closed", problems)


def raise_as_it_is(error: Exception) -> NoReturn:
    """Raise an exception kept from elsewhere without changing what it was raised from."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
