"""Waiting for a page in a way that its content security policy allows."""

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


def until_titled(tab: Any, title: str) -> None:
    """Wait until ``tab`` shows a page of this title, also while it goes from one page to the next.

    `until` cannot: what it asks of a page that is being left ends in an error of Playwright's.
    """
    from playwright.sync_api import expect

    expect(tab).to_have_title(title, timeout=SECONDS * 1000)
