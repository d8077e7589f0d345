"""Pages in a real browser: Debian's Chromium without a window, driven by Playwright (which brings none of its own)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from subject_pages import Pages, make_pages

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Visit:
    """A page that was opened from disk: ``tab`` is Playwright's, ``errors`` what the console said as warning or error,
    ``requests`` every address asked for besides the page itself."""

    tab: Any
    path: Path
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str = "body") -> str:
        """What a reader sees there, its white space made plain."""
        return " ".join(self.tab.locator(selector).first.inner_text().split())

    def shown(self, selector: str) -> bool:
        """Whether something that fits is on the page and not hidden."""
        found = self.tab.locator(selector)
        return any(found.nth(i).is_visible() for i in range(found.count()))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser, one for the whole run; ``POSEPIPE_CHROMIUM`` names another program."""
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("POSEPIPE_CHROMIUM"), *PROGRAMS)
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(PROGRAMS)}): install Debian's package chromium")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens a file: ``open_page(path, fragment="#rate", width=1280, height=900, before="script", same=visit)``.

    Each call is a visitor of its own, with a storage of its own; ``same`` gives the new tab to the visitor of another call.
    ``before`` is run before the page's own scripts. At the end of the test every page must have been silent on the console
    and must have asked for nothing.
    """
    visits: list[Visit] = []

    def visit(
        path: Path, fragment: str = "", *, width: int = 1280, height: int = 900, before: str = "", same: Visit | None = None
    ) -> Visit:
        context = same.tab.context if same else browser.new_context(viewport={"width": width, "height": height})
        address = Path(path).resolve().as_uri()
        found = Visit(context.new_page(), Path(path))
        visits.append(found)

        def ask(request: Any) -> None:
            if request.url.partition("#")[0].partition("?")[0] != address:
                found.requests.append(request.url)

        found.tab.on("request", ask)
        found.tab.on("console", lambda m: found.errors.append(m.text) if m.type in {"error", "warning"} else None)
        found.tab.on("pageerror", lambda error: found.errors.append(str(error)))
        if before:
            found.tab.add_init_script(before)
        found.tab.goto(address + fragment)
        return found

    yield visit
    said = [(v.path.name, v.errors, v.requests) for v in visits if v.errors or v.requests]
    for context in {v.tab.context for v in visits}:
        context.close()
    assert not said


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Subject pages of phantoms, made by the app."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("POSEPIPE_ATLAS_PATH", "TEMPLATEFLOW_HOME"):
            patch.delenv(name, raising=False)
        yield make_pages(tmp_path_factory.mktemp("pages"))
