"""The command line, the config file, and the settings made from both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posepipe.cli.app import main
from posepipe.cli.config_file import read_plugin_args, read_toml
from posepipe.cli.parser import build_parser, gigabytes, parse_settings
from posepipe.errors import UsageError
from posepipe.settings import Settings

PLACES = ["/data/bids", "/data/out", "participant"]


def test_defaults_are_those_of_settings() -> None:
    s = parse_settings(PLACES)
    plain = Settings(Path("/data/bids"), Path("/data/out"), Path("work").absolute(), s.run_id, s.command)
    assert s == plain
    assert s.command == "posepipe /data/bids /data/out participant"


def test_run_ids_differ() -> None:
    assert parse_settings(PLACES).run_id != parse_settings(PLACES).run_id


def test_options_reach_settings() -> None:
    s = parse_settings(
        [
            *PLACES, "--participant-label", "01", "sub-02", "--session-label", "1", "-d", "masks=/m", "-d", "/n",
            "--atlas", "CRL", "--atlas-dir", "/a", "--atlas-dir", "/b", "--age", "29.5", "--age-policy", "nearest",
            "--contrast", "T1w", "--mask", "given", "--init", "axes", "--refine", "none", "--nprocs", "3",
            "--omp-nthreads", "2", "--mem-gb", "800MB", "--device", "cpu", "-w", "/w", "--random-seed", "7", "-vv",
            "--skip-bids-validation", "--stop-on-first-crash",
        ]
    )  # fmt: skip
    assert s.participant_label == ("01", "sub-02") and s.session_label == ("1",)
    assert s.derivatives == ("masks=/m", "/n") and s.atlas_dir == (Path("/a"), Path("/b"))
    assert (s.atlas, s.age, s.age_policy, s.contrast, s.mask, s.init, s.refine) == (
        ("CRL",), 29.5, "nearest", "T1w", "given", "axes", "none",
    )  # fmt: skip
    assert (s.nprocs, s.omp_nthreads, s.mem_gb, s.device, s.random_seed, s.verbose) == (3, 2, 0.8, "cpu", 7, 2)
    assert s.work_dir == Path("/w") and s.skip_bids_validation and s.stop_on_first_crash


@pytest.mark.parametrize(
    "wrong",
    [
        ["--init", "guess"],
        ["--mask", "magic"],
        ["--mem-gb", "many"],
        ["--mem-gb", "0"],
        ["--nprocs", "0"],
        ["--dry-run", "--reports-only"],
    ],
)
def test_usage_errors_leave_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*PLACES, *wrong])
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--ratings", "r"], ["--blind", "AB"]])
def test_options_of_the_group_level_belong_to_it(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLACES, *option]) == 2
    assert f"{option[0]} belongs to the group level" in capsys.readouterr().err


def test_group_level_takes_ratings_and_raters() -> None:
    s = parse_settings(["/data/bids", "/data/out", "group", "--ratings", "/r", "--blind", "AB", "C-2"])
    assert (s.analysis_level, s.ratings, s.blind) == ("group", Path("/r"), ("AB", "C-2"))


@pytest.mark.parametrize("words", [["/data/bids", "/data/out", "both"], [*PLACES[:2], "group", "--blind", "../x"]])
def test_unknown_level_and_unusable_rater_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    output = capsys.readouterr().err
    assert "both" in output or "rater's name" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--age", "29", "--age-column", "ga"], "exclude each other"),
        (["-w", "/data/bids"], "the work folder would be the dataset"),
    ],
)
def test_settings_that_cannot_work_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PLACES, *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("8", 8), (".5", 0.5), ("7.5GB", 7.5), ("6 g", 6), ("1500mb", 1.5)])
def test_memory(text: str, size: float) -> None:
    assert gigabytes(text) == pytest.approx(size)


def write_config(folder: Path, text: str) -> list[str]:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return [*PLACES, "--config-file", str(path)]


def test_config_file_fills_in_and_the_command_line_wins(tmp_path: Path) -> None:
    command = write_config(
        tmp_path,
        'atlas = "CRL"\natlas-dir = ["/file"]\nrefine = "torch"\nmem_gb = 4.5\nage = 30\nparticipant-label = "01"\n'
        "skip-bids-validation = true\n[run]\ncommand = 'x'\n[versions]\nposepipe = '1'\n",
    )
    s = parse_settings([*command, "--refine", "none", "--atlas-dir", "/line"])
    assert (s.atlas, s.refine, s.mem_gb, s.age, s.skip_bids_validation) == (("CRL",), "none", 4.5, 30.0, True)
    assert s.atlas_dir == (Path("/line"),) and s.participant_label == ("01",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("refin = 'ants'", "did you mean refine"),
        ("refine = 'magic'", "is one of ants, torch, none"),
        ("nprocs = 0", "not a whole number above 0"),
        ("skip-bids-validation = 'yes'", "true or false"),
        ("refine = ['ants', 'torch']", "cannot be"),
        ("config-file = 'x.toml'", "unknown option"),
        ("atlas = ", "not valid TOML"),
    ],
)
def test_config_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings(write_config(tmp_path, text))


def test_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        parse_settings([*PLACES, "--config-file", str(tmp_path / "none.toml")])


def test_recorded_settings_read_back_as_they_were(tmp_path: Path) -> None:
    s = parse_settings([*PLACES, "--participant-label", "01", "--atlas-dir", '/a "b"\\c', "--age", "29", "-v"])
    record = tmp_path / "posepipe.toml"
    record.write_text(s.to_toml({"posepipe": "1"}), encoding="utf-8")
    assert read_toml(record)["run"]["command"] == s.command
    again = parse_settings([*PLACES, "--config-file", str(record)])
    for name in ("participant_label", "atlas_dir", "age", "verbose", "work_dir", "mem_gb", "refine"):
        assert getattr(again, name) == getattr(s, name), name


def test_plugin_args_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("n_procs = 2\n")
    (tmp_path / "a.json").write_text('{"n_procs": 2}')
    assert read_plugin_args(tmp_path / "a.toml") == read_plugin_args(tmp_path / "a.json") == {"n_procs": 2}
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(UsageError, match="expected an object"):
        read_plugin_args(tmp_path / "b.json")


def test_every_option_is_a_setting() -> None:
    names = {action.dest for action in build_parser()._actions} - {"help", "version"}
    assert names == set(Settings.__dataclass_fields__) - {"run_id", "command"}


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("module", ["app", "tools"])
def test_help_and_version_load_nothing_heavy(module: str, option: str) -> None:
    code = (
        "import sys\n"
        f"from posepipe.cli.{module} import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'numpy', 'nipype', 'bids', 'ants', 'nibabel', 'scipy', 'matplotlib'}))"
    )
    done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "posepipe" in done.stdout


def test_config_names_hold_for_the_parser(tmp_path: Path) -> None:
    options: dict[str, Any] = vars(build_parser().parse_args(write_config(tmp_path, "atlas = 'CRL'")))
    assert set(options) == {"bids_dir", "out_dir", "analysis_level", "config_file"}
