"""Waiting for a page, in a way that its content security policy does not forbid."""

from __future__ import annotations

import time
from typing import Any

SECONDS = 30.0


def until(tab: Any, script: str, arg: object = None) -> None:
    """Wait until ``script``, an expression or a function of ``arg``, is true in the page ``tab`` of Playwright.

    Playwright's own ``wait_for_function`` asks again from inside the page, where the pages' policy forbids ``eval``: it works only if the
    first answer is true.
    """
    end = time.monotonic() + SECONDS
    while not tab.evaluate(script, arg):
        if time.monotonic() > end:
            msg = f"{tab.url}: still not so after {SECONDS:.0f} s: {script}"
            raise AssertionError(msg)
        tab.wait_for_timeout(20)
