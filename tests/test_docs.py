"""The documentation: commands parse, Python compiles, links have targets, and the tutorials run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, Block, blocks, check_page, check_python, commands, missing_links, named, pages
from test_layout import BELOW

PAGES = pages()
LONGEST_README = 120
ALIGN = "posepipe-tools align a.nii --age 29"


def _write(folder: Path, text: str, language: str = "bash") -> Path:
    page = folder / "page.md"
    page.write_text(f"# A page\n\n```{language}\n{text}\n```\n", encoding="utf-8")
    return page


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_python_of_a_page(page: Path) -> None:
    assert not check_page(page)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_pictures_of_a_page(page: Path) -> None:
    assert not missing_links(page)


def test_there_are_commands_to_check() -> None:
    found = [words[0] for page in PAGES for block in blocks(page) if block.language == "bash" for _, words in commands(block)]
    assert found.count("posepipe") > 15
    assert found.count("posepipe-tools") > 40


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("posepipe DATA OUT participant --refien torch", "--refien"),
        ("posepipe DATA OUT participant --refine elastix", "invalid choice: 'elastix'"),
        ("posepipe DATA OUT participants", "participants"),
        ("posepipe DATA OUT participant --mem-gb much", "not an amount of memory"),
        ("posepipe DATA participant", "required"),
        ("ls x && posepipe DATA OUT participant --bad", "--bad"),
        ("posepipe DATA OUT participant \\\n    --bad", "--bad"),
        (ALIGN, "-o/--out-dir"),
        (f"{ALIGN} -o out --slices maybe", "invalid choice: 'maybe'"),
        ("posepipe-tools align … --slcies on", "--slcies"),
        ("posepipe-tools train pose --sources s.npz -o out --loss-stages sum", "invalid choice: 'sum'"),
        ("posepipe-tools train recipe no-such-net --sources s.npz -o out", "no-such-net"),
        ("posepipe-tools train recipe scan --sources s.npz --scnes x.npz", "--scnes"),
        ("posepipe-tools array DATA OUT --scheduler slurm -- --refine elastix", "invalid choice: 'elastix'"),
        ("posepipe-tools bench volumes DATA -o OUT", "volumes"),
        ("python -m posepipe.bench.no_such DATA", "no_such"),
        ("pytest tests/no_such_folder", "no_such_folder"),
    ],
)
def test_a_wrong_command_is_reported_with_page_and_line(tmp_path: Path, command: str, says: str) -> None:
    (wrong,) = check_page(_write(tmp_path, f"ls\n{command}"))
    assert wrong.startswith(f"{tmp_path}/page.md:5: ")
    assert says in wrong


@pytest.mark.parametrize(
    "command",
    [
        f"{ALIGN} -o out  # posepipe --bad",
        "posepipe-tools align a.nii …",
        "OMP_NUM_THREADS=1 posepipe DATA OUT group > log && posepipe --version",
        "posepipe DATA OUT participant \\\n    -d masks=/data/masks",
    ],
)
def test_a_right_command_is_none(tmp_path: Path, command: str) -> None:
    assert check_page(_write(tmp_path, command)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import posepipe\nposepipe.align('a.nii', age=29, atlsa='CRL')", "atlsa"),
        ("import posepipe\nposepipe.alin('a.nii')", "alin"),
        ("from posepipe.geometry import Rigidd", "Rigidd"),
        ("from posepipe.nowhere import x", "nowhere"),
        ("x = (", "never closed"),
    ],
)
def test_wrong_python_is_reported(tmp_path: Path, text: str, says: str) -> None:
    (wrong,) = check_page(_write(tmp_path, text, "python"))
    assert f"{tmp_path}/page.md:4: " in wrong
    assert says in wrong
    check_python("import posepipe\nposepipe.align('a.nii', age=29, atlas='CRL', mask='m.nii')")


def test_a_link_to_nothing_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "there.md").touch()
    page.write_text("[a](there.md#b) [c](not-there.md) ![d](e.png) `[f](g)` [h](https://example.org)\n```\n[i](j)\n```\n", encoding="utf-8")
    assert missing_links(page) == [f"{page}: not-there.md", f"{page}: e.png"]


def test_pages_that_the_code_names_are_there() -> None:
    wrong = []
    for folder in ("posepipe", "workflows", "atlases", "tests", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".toml", ".js", ".css", ".html", ""} and path.is_file():
                for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|py|png|svg)\b", path.read_text(encoding="utf-8", errors="replace")):
                    if not (ROOT / name).is_file():
                        wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


def test_the_table_of_the_architecture_is_what_the_test_of_imports_holds() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.M)
    assert [(name, " ".join(re.findall(r"`(\w+)`", below))) for name, below in rows] == list(BELOW.items())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


# the tutorials, as they stand

PROGRAM = """#!{python}
import sys
from posepipe.cli.{module} import main
if __name__ == "__main__":
    sys.exit(main())
"""


def run_page(page: Path, folder: Path) -> None:
    """Run what a page shows, in ``folder``: its ``bash`` blocks in order in one shell that stops at the first error, then its ``python``
    blocks in one interpreter. ``posepipe`` and ``posepipe-tools`` are those of this interpreter."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, module in (("posepipe", "app"), ("posepipe-tools", "tools")):
        program = programs / name
        program.write_text(PROGRAM.format(python=sys.executable, module=module))
        program.chmod(0o755)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(paths)}
    mine: list[Block] = [block for block in blocks(page) if block.runs]
    shell = "".join(block.text for block in mine if block.language == "bash")
    python = "".join(block.text for block in mine if block.language == "python")
    for command in (["bash", "-euxo", "pipefail", "-c", shell], [sys.executable, "-c", python]):
        if command[-1]:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False)
            assert done.returncode == 0, f"{page}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def tutorial(name: str) -> Path:
    """The page of a tutorial."""
    return ROOT / "docs" / "tutorials" / f"{name}.md"


@pytest.fixture(scope="module")
def after_the_first_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """The folder in which the first tutorial was run."""
    folder = tmp_path_factory.mktemp("tutorials")
    run_page(tutorial("first-run"), folder)
    return folder


@pytest.mark.slow
def test_the_first_run(after_the_first_run: Path) -> None:
    assert (after_the_first_run / "demo_out" / "posepipe" / "group_pose.html").is_file()


@pytest.mark.slow
def test_your_data(after_the_first_run: Path) -> None:
    run_page(tutorial("your-data"), after_the_first_run)
    assert (after_the_first_run / "out" / "sub-01.html").is_file()


@pytest.mark.slow
def test_one_image(after_the_first_run: Path) -> None:
    run_page(tutorial("one-image"), after_the_first_run)
    assert (after_the_first_run / "one" / "sub-01_rec-svr_T2w.html").is_file()


@pytest.mark.slow
def test_python(after_the_first_run: Path) -> None:
    run_page(tutorial("python"), after_the_first_run)
    assert list((after_the_first_run / "saved").glob("brain_*_xfm.txt"))


@pytest.mark.parametrize("text", ["ls no-such-file", "false\ntrue", "posepipe DATA OUT participants"])
def test_a_page_whose_command_fails_is_noticed(tmp_path: Path, text: str) -> None:
    with pytest.raises(AssertionError):
        run_page(_write(tmp_path, text), tmp_path)
    run_page(_write(tmp_path, "true"), tmp_path)
