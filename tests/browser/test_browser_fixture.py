"""The browser fixture detects the faults that it should detect."""

from __future__ import annotations

from pathlib import Path


def test_errors_and_requests_are_seen(open_page, tmp_path: Path):
    path = tmp_path / "a b#1.html"
    path.write_text(
        "<!DOCTYPE html><h1>One\n two</h1><p hidden>x</p><img src=http://127.0.0.1:9/a.png>"
        "<script>console.warn('careful'); gone()</script>",
        encoding="utf-8",
    )
    visit = open_page(path, "?a#b")
    assert visit.text("h1") == "One two"
    assert visit.shown("h1") and not visit.shown("p")
    assert visit.requests == ["http://127.0.0.1:9/a.png"]
    assert "careful" in visit.errors and any("gone is not defined" in error for error in visit.errors)
    visit.errors.clear()
    visit.requests.clear()


def test_a_silent_page_is_silent(open_page, tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text("<!DOCTYPE html><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='><p>fine</p>", encoding="utf-8")
    first = open_page(path, width=400)
    first.tab.evaluate("localStorage.setItem('a', '1')")
    assert open_page(path, same=first).tab.evaluate("localStorage.getItem('a')") == "1"
    assert open_page(path).tab.evaluate("localStorage.getItem('a')") is None
    assert first.tab.viewport_size["width"] == 400
