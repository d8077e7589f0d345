"""``posepipe-tools train``: from sources to weights that can be loaded, interrupted or not, and errors."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posepipe.cli import train_command
from posepipe.cli.tools import main
from posepipe.models import load_network
from posepipe.models.weights import PACKAGED
from posepipe.training import recipes
from posepipe.training.card import data_terms, terms_line
from posepipe.training.engine import Schedule
from posepipe.training.job import PRESETS, Job, run_job
from posepipe.training.plot import plot_log
from posepipe.training.recipes import recipe_names, recipe_stages
from posepipe.training.sources import Sources
from posepipe.training.synthesis import Recipe

TINY = ["--size", "16"]
TINY += ["--steps", "3", "3", "--batch", "2", "--log-every", "2", "--validate-every", "4", "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def _few_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posepipe.training.job.VALIDATION_BATCHES", 1)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["posenet", "correction"])
def test_from_sources_to_weights(gathered: Any, tmp_path: Path, capsys: Any, network: str) -> None:
    kind = ["correction"] if network == "correction" else ["pose", "--network", network]
    command = ["train", *kind, "--sources", str(gathered.path), "-o", str(tmp_path), *TINY]
    assert main(command) == 0
    messages = capsys.readouterr().out
    assert "step 2 of 6 (mse)" in messages and "step 6 of 6 (geodesic)" in messages and " left" in messages
    assert "research use only" in messages and "non-commercial research" in messages
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "job.json", "log.csv", "log.png", "weights"]
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
    loaded = load_network(network, weights_dir=tmp_path / "weights")
    assert loaded.options["size"] == 16
    card = (tmp_path / "weights" / f"{network}.md").read_text(encoding="utf-8")
    for words in ("research use only", "| Phantom | 2 |", "| bids | 1 |", "CC0", "seed 0", "mean rotation error", "steps 3 + 3"):
        assert words in card
    # once more: nothing is left to do, and nothing changes
    assert main(command) == 0
    assert load_network(network, weights_dir=tmp_path / "weights").sha256 == loaded.sha256


@pytest.mark.slow
@pytest.mark.parametrize("network", ["coordinates", "posenet"])
def test_an_interrupted_job_ends_as_an_uninterrupted_one(gathered: Any, tmp_path: Path, network: str) -> None:
    schedule = replace(PRESETS[network].schedule, steps=(2, 2), batch=2, every=1, warmup=1)
    job = Job(network, gathered.path, tmp_path / "whole", schedule, size=16, curriculum=2, leave_out=("bids",))

    def stop(text: str) -> None:
        if text.startswith("step 3 of 4"):
            raise KeyboardInterrupt

    whole = run_job(job, lambda _: None)
    cut = replace(job, output=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run_job(cut, stop)
    assert (tmp_path / "cut" / "log.png").is_file() and not (tmp_path / "cut" / "weights").exists()
    messages: list[str] = []
    assert run_job(cut, messages.append).read_bytes() == whole.read_bytes()
    assert any("going on from step 3" in line for line in messages)
    assert "Left out on purpose: bids" in whole.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--size", "20"], 1, "multiple of 16"),
        (["--network", "refiner", "--curriculum", "5"], 2, "refiner sees small ones only"),
        (["--network", "refiner", "--foreground-offset", "0"], 2, "--foreground-offset is for the paper's networks"),
        (["--leave-out", "Phantm"], 2, "the sources hold Phantom, bids"),
        (["--batch", "1"], 2, "two images a batch"),
        (["--sources", "/nowhere.npz"], 2, "/nowhere.npz: not a file of training sources"),
    ],
)
def test_what_cannot_be_is_reported(gathered: Any, tmp_path: Path, capsys: Any, options: list[str], code: int, words: str) -> None:
    assert main(["train", "pose", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY, *options]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pose", "correction"])
def test_plain_images_of_one_contrast(gathered: Any, tmp_path: Path, kind: str) -> None:
    assert main(["train", kind, "--sources", str(gathered.path), "-o", str(tmp_path), "--contrast", "T2w", "--plain", *TINY]) == 0
    recipe = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))["recipe"]
    assert (recipe["contrast"], recipe["labels"], recipe["deform"], recipe["stretch"]) == ("T2w", 0.0, 0.0, 0.0)
    assert not any(recipe["corruption"][name] for name in ("cut", "leak", "rim", "texture", "bias", "noise", "thick"))
    assert recipe["shift"] > 0 and recipe["log_scale"] > 0


@pytest.mark.slow
@pytest.mark.decisions
def test_a_network_continues_from_another(gathered: Any, tmp_path: Path) -> None:
    """At a rate of next to nothing it stays what it was; from scratch, with the same seed, it is another."""
    of = {}
    for name, rate, options in (
        ("first", "1e-3", []),
        ("further", "1e-9", ["--start", str(tmp_path / "first/weights"), "--start-name", "first"]),
        ("fresh", "1e-9", []),
    ):
        command = ["train", "scan", "--sources", str(gathered.path), "-o", str(tmp_path / name), "--name", name, *TINY]
        assert main([*command, "--rate", rate, "--seed", str(int(name != "first")), *options]) == 0
        of[name] = load_network(name, weights_dir=tmp_path / name / "weights")
    one, other, fresh = (of[n].module.state_dict()["head.weight"] for n in ("first", "further", "fresh"))
    assert torch.allclose(one, other, atol=1e-3) and not torch.allclose(one, fresh, atol=1e-3)
    about = json.loads((tmp_path / "further" / "job.json").read_text(encoding="utf-8"))
    assert about["start"] == {"first": of["first"].sha256}
    assert f"initial weights {of['first'].sha256[:12]}" in (tmp_path / "further/weights/further.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_scan_network_begins_from_one_of_masked_brains(gathered: Any, tmp_path: Path) -> None:
    data = ["--sources", str(gathered.path), *TINY]
    assert main(["train", "pose", "-o", str(tmp_path / "pose"), "--name", "masked", *data]) == 0
    start = ["--start", str(tmp_path / "pose/weights"), "--start-name", "masked", "--rate", "1e-9"]
    assert main(["train", "scan", "-o", str(tmp_path / "scan"), *start, *data]) == 0
    masked, scan = (load_network(n, weights_dir=tmp_path / f / "weights").module for n, f in (("masked", "pose"), ("scan", "scan")))
    assert torch.allclose(masked.state_dict()["head.weight"][:4], scan.state_dict()["head.weight"][:4], atol=1e-3)


def test_a_fold_that_is_none_is_reported(gathered: Any, tmp_path: Path, capsys: Any) -> None:
    options = ["--scenes", str(gathered.path), "--leave-fold", "z"]
    assert main(["train", "scan", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY, *options]) == 2
    assert "--leave-fold z: there are folds a, b, c" in capsys.readouterr().err


def test_another_job_in_the_same_folder_is_refused(gathered: Any, tmp_path: Path, capsys: Any) -> None:
    command = ["train", "pose", "--network", "posenet", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY]
    assert main(command) == 0
    assert main([*command, "--seed", "1"]) == 2
    assert "with other seed" in capsys.readouterr().err


@pytest.mark.slow
def test_one_stage_for_all_steps(gathered: Any, tmp_path: Path, capsys: Any) -> None:
    command = ["train", "pose", "--network", "posenet", "--loss-stages", "mse", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY]
    assert main(command) == 0
    messages = capsys.readouterr().out
    assert "step 6 of 6 (mse)" in messages and "geodesic" not in messages


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subjects", "x"], "need --reference"),
        (["--reference", "Nowhere"], "no atlas named 'Nowhere'"),
        (["--terms", "CC0"], "--terms takes GROUP=TEXT"),
    ],
)
def test_sources_that_cannot_be(demo: Any, tmp_path: Path, capsys: Any, options: list[str], words: str) -> None:
    out = tmp_path / "pack.npz"
    base = ["train", "sources", "--atlas-dir", str(demo.atlas_dir), "-o", str(out)]
    reference = [] if "--reference" in options or "--subjects" in options else ["--reference", "Phantom"]
    assert main([*base, *reference, *options]) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_terms_follow_the_data(sources: Sources) -> None:
    assert terms_line(data_terms(sources, ("bids",))) == "free for any use, as all of its training data: Phantom (CC0)"
    assert terms_line(data_terms(sources)).startswith("research use only")
    for bound in ("CC BY-NC 4.0", "not stated", "GNU General Public License", "no licence stated by the authors; cite the atlas"):
        assert terms_line({"a": bound}).startswith("research use only")
    for free in ("CC0 1.0", "CC BY 4.0", "MIT", "BSD-2"):
        assert terms_line({"a": free}).startswith("free for any use")


def test_presets_are_networks_that_can_be_made() -> None:
    from posepipe.models.weights import build

    for preset in PRESETS.values():
        with torch.device("meta"):
            build(preset.architecture, {"size": 32, **preset.options}, where="here")
        assert isinstance(preset.schedule, Schedule)


def test_a_log_without_lines_cannot_be_plotted(tmp_path: Path) -> None:
    from posepipe.errors import UsageError

    (tmp_path / "log.csv").write_text("step,stage,loss\n")
    with pytest.raises(UsageError, match="no line"):
        plot_log(tmp_path / "log.csv", tmp_path / "log.png")


OTHERS = {"paper-pose-net", "paper-correction-net", "pose-coarse", "pose-fine"}
"""Recipes whose networks are not the packaged ones."""


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - OTHERS))
def test_a_recipe_is_what_the_card_of_the_packaged_network_says(name: str) -> None:
    card = (PACKAGED / f"{name}.md").read_text(encoding="utf-8")
    job = last_job(name)
    steps = job.schedule.steps
    assert f"Schedule: steps {steps[0]} + {steps[1]}, batch {job.schedule.batch}, rate {job.schedule.rate:g}," in card
    assert f"seed {job.seed};" in card and job.name == name
    assert not job.leave_out or f"Left out on purpose: {', '.join(job.leave_out)}." in card


def test_the_paper_s_recipes_train_as_in_the_paper() -> None:
    jobs = [last_job(name) for name in ("paper-pose-net", "paper-correction-net")]
    for job in jobs:
        recipe = job.recipe
        assert isinstance(recipe, Recipe) and (recipe.contrast, recipe.labels, recipe.sizes) == ("T2w", 0.0, "age")
        assert recipe == recipe.clean() and job.options["foreground_offset"] == 0 and job.options["sizes"] == "age"
        assert (job.schedule.optimizer, job.schedule.rate, job.schedule.batch) == ("sgd", 1e-3, 32) and min(job.schedule.steps) > 0
    assert jobs[0].recipe.max_angle == 180 and (jobs[1].recipe.xyz, jobs[1].recipe.shift_mm) == (25, 10)


def last_job(name: str) -> Job:
    """The last training of the recipe ``name``."""
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser.add_subparsers())
    command, *options = recipe_stages(name)[-1]
    return train_command._job(parser.parse_args(["train", command, *options, "--sources", "s.npz", "-o", "out"]), "cpu")


@pytest.mark.slow
def test_stages_of_a_recipe_go_on_from_one_another(gathered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = '[[stages]]\ntrain = "pose"\n[stages.options]\nsteps = [2, 0]\nbatch = 2\nrate = {}\nsize = 16\n'
    (tmp_path / "tiny.toml").write_text(stage.format("1e-3") + stage.format("1e-9"), encoding="utf-8")
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    out = tmp_path / "out"
    assert main(["train", "recipe", "tiny", "--sources", str(gathered.path), "-o", str(out), "--log-every", "1"]) == 0
    first, last = (load_network("tiny", weights_dir=folder / "weights") for folder in (out / "stage-1", out))
    assert json.loads((out / "job.json").read_text(encoding="utf-8"))["start"] == {"tiny": first.sha256}
    assert torch.allclose(first.module.state_dict()["head.weight"], last.module.state_dict()["head.weight"], atol=1e-3)


@pytest.mark.slow
def test_after_an_interrupt_the_message_says_how_to_resume(
    gathered: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(text: str) -> None:
        print(text)
        if text.startswith("step 4 of 6"):
            raise KeyboardInterrupt

    command = ["train", "pose", "--network", "posenet", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY]
    with monkeypatch.context() as patch:
        patch.setattr("posepipe.cli.train_command._say", stop)
        assert main(command) == 130
    messages = capsys.readouterr()
    assert "the last checkpoint is complete; the same command continues from it" in messages.out and "stopped by" in messages.err
    assert main(command) == 0
    messages = capsys.readouterr()
    assert "going on from step" in messages.out and "step 6 of 6" in messages.out and "step 2 of 6" not in messages.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["contrast", "--unpaired", "--start", "x"], "learning without pairs trains two"),
        (["pose", "--sizes", "age"], "--sizes age is for the paper's networks"),
        (["recipe", "nowhere"], "there is no recipe 'nowhere': choose from"),
        (["pose", "--batch", "-1"], "-1 is less than 0"),
    ],
)
def test_commands_that_cannot_be(gathered: Any, tmp_path: Path, capsys: Any, command: list[str], words: str) -> None:
    try:
        code = main(["train", *command, "--sources", str(gathered.path), "-o", str(tmp_path)])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    assert code == 2 and words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the message for a missing CUDA device, and there is one here")
def test_a_device_that_is_not_here_is_reported(gathered: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "pose", "--sources", str(gathered.path), "-o", str(tmp_path), *TINY[:-4], "--device", "cuda"]) == 2
    assert "torch finds no CUDA device here; use --device cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_label_maps_are_registered_to_the_reference(miniature: Any, tmp_path: Path, capsys: Any) -> None:
    data = miniature.part(tmp_path / "data", "ds-labels", atlases=("CRL/35", "CRL/36"))
    command = ["train", "sources", "--atlas-dir", str(data / "atlases"), "--atlases", "CRL", "--reference", "CRL"]
    command += ["--labels", str(data / "ds-labels"), "--voxels", "40", "--terms", "ds-labels=mine", "-o", str(tmp_path / "pack.npz")]
    assert main(command) == 0
    assert "of 3 brains to train" in capsys.readouterr().out
    sources = Sources.load(tmp_path / "pack.npz")
    assert sources.terms["ds-labels"] == "mine"
    found = {(p.name, p.group, p.kind) for p in sources.volumes}
    assert found == {("sub-B01", "ds-labels", "labels"), *(("CRL+" + w, "CRL", k) for w in ("35", "36") for k in ("T2w", "labels"))}
    # as large as the template of its age, of which it was made
    radius = {p.name: p.radius_mm for p in sources.volumes}
    assert radius["sub-B01"] == pytest.approx(radius["CRL+36"], rel=0.03)
