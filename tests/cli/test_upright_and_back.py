"""``posepipe-tools align`` with formats and labels, and ``convert``, ``reorient`` and ``restore`` of what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.cli.tools import main
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.apply import reorient
from posepipe.imaging.grid import Grid
from posepipe.imaging.transform_files import read_transform
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.settings import XFM_FORMATS


@dataclass(frozen=True)
class Aligned:
    """A whole head, what `align` wrote of it, and the template."""

    image: Path
    out: Path
    forward: Path
    template: Path

    def made(self, name: str) -> Path:
        return self.out / f"head_{name}"


@pytest.fixture(scope="module")
def aligned(raw_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    folder = tmp_path_factory.mktemp("align")
    image = folder / "head.nii.gz"
    image.write_bytes((raw_study.bids / "sub-03/anat/sub-03_T2w.nii.gz").read_bytes())
    code = main([
        "align", str(image), "--age", "39.1", "-o", str(folder / "out"), "--atlas", "Phantom", "--atlas-dir", str(raw_study.demo.atlas_dir),
        "--init", "search", "--refine", "torch", "--contrast", "T2w", "--labels", "--xfm-formats", *XFM_FORMATS,
    ])  # fmt: skip
    assert code == 0
    forward = folder / "out" / "head_from-T2w_to-Phantom+39_mode-image_xfm.txt"
    return Aligned(image, folder / "out", forward, raw_study.demo.atlas_dir / "tpl-Phantom/cohort-39/tpl-Phantom_cohort-39_T2w.nii.gz")


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*command: object) -> tuple[int, str]:
        code = main([str(word) for word in command])
        output = capsys.readouterr()
        return code, output.out + output.err

    return run


@pytest.mark.slow
def test_align_writes_formats_and_labels(aligned: Aligned) -> None:
    stem = aligned.forward.name.removesuffix(".txt")
    assert {p.name.removeprefix(stem) for p in aligned.out.glob(f"{stem}.*")} == {*XFM_FORMATS.values(), ".json"}
    sidecar = json.loads(aligned.forward.with_suffix(".json").read_text(encoding="utf-8"))
    assert set(sidecar["TransformFiles"]) == set(XFM_FORMATS) - {"itk"} and set(sidecar["Labels"]) == {"tissues"}
    assert sidecar["TransformFiles"]["fsl"]["NeedsGeometryOf"] == [aligned.image.name, aligned.template.name]
    image, template = Grid.load(aligned.image), Grid.load(aligned.template)
    pose, inverse = read_itk(aligned.forward), "head_from-Phantom+39_to-T2w_mode-image_xfm"
    for form, end in XFM_FORMATS.items():
        one, other = read_transform(aligned.out / f"{stem}{end}", form, image, template), aligned.out / f"{inverse}{end}"
        assert one.is_close(pose, 1e-4, 1e-4) and read_transform(other, form, template, image).is_close(~pose, 1e-4, 1e-4)
    sidecar = json.loads((aligned.out / f"{inverse}.json").read_text(encoding="utf-8"))
    assert sidecar["TransformFiles"]["fsl"]["NeedsGeometryOf"] == [aligned.template.name, aligned.image.name]
    labels, mask = load_volume(aligned.made("seg-tissues_desc-atlas_dseg.nii.gz")), load_volume(aligned.made("desc-brain_mask.nii.gz"))
    assert labels.same_grid(load_volume(aligned.image))
    a, b = labels.data > 0, mask.data > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9
    sidecar = json.loads(aligned.made("seg-tissues_desc-atlas_dseg.json").read_text(encoding="utf-8"))
    assert sidecar["Transform"] == aligned.forward.name and "not a segmentation" in sidecar["Description"]
    assert f"{stem}.mat" in aligned.made("xfm").with_name("head.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("form", XFM_FORMATS)
def test_convert_makes_what_align_writes_and_turns_it_back(aligned: Aligned, tool: Any, tmp_path: Path, form: str) -> None:
    images = ("--moving", aligned.image, "--reference", aligned.template)
    there, back = tmp_path / f"x{XFM_FORMATS[form]}", tmp_path / "back.txt"
    code, output = tool("convert", aligned.forward, "--to", form, *images, "-o", there)
    assert code == 0 and "from ITK" in output
    code, output = tool("convert", there, "--to", "itk", *images, "-o", back)
    assert code == 0, output
    assert read_itk(back).is_close(read_itk(aligned.forward), 1e-4, 1e-4)
    written = aligned.forward.with_name(aligned.forward.name.removesuffix(".txt") + XFM_FORMATS[form])
    code, output = tool("convert", written, "--to", "itk", *images, "-o", back)
    assert code == 0 and read_itk(back).is_close(read_itk(aligned.forward), 1e-4, 1e-4)


@pytest.mark.slow
def test_upright_segment_and_back(aligned: Aligned, tool: Any, tmp_path: Path) -> None:
    upright, labels, back = (tmp_path / f"{name}.nii.gz" for name in ("upright", "labels", "back"))
    code, output = tool("reorient", aligned.image, aligned.forward, "-o", upright)
    assert code == 0 and "voxels are unchanged" in output
    image, turned, ours = (load_volume(path, None) for path in (aligned.image, upright, aligned.made("desc-reoriented_T2w.nii.gz")))
    assert turned.data.dtype == image.data.dtype and np.array_equal(turned.data, image.data) and turned.same_grid(ours)
    # a segmentation, by whatever tool
    save_volume(turned.with_data(np.digitize(turned.data, np.quantile(turned.data[turned.data > 0], [0.2, 0.6])).astype(np.uint8)), labels)
    code, output = tool("restore", labels, aligned.forward, "--like", aligned.image, "-o", back)
    assert code == 0 and "by the header alone" in output
    restored = load_volume(back, None)
    assert np.array_equal(restored.data, load_volume(labels, None).data) and restored.same_grid(image)


@pytest.mark.slow
def test_labels_on_the_atlas_grid_come_back_onto_the_image(aligned: Aligned, tool: Any, tmp_path: Path) -> None:
    dseg = aligned.template.with_name(aligned.template.name.replace("T2w", "desc-tissues_dseg"))
    back = tmp_path / "back.nii.gz"
    code, output = tool("restore", dseg, aligned.forward, "--like", aligned.image, "-o", back)
    assert code == 0 and "nearest neighbour, as for labels" in output and "give --order 3" in output
    ours = load_volume(aligned.made("seg-tissues_desc-atlas_dseg.nii.gz"), None)
    assert np.mean(load_volume(back, None).data != ours.data) < 1e-4
    resampled = aligned.made("space-Phantom_cohort-39_T2w.nii.gz")
    for order, said in (((), "cubic, as for images"), (("--order", 1), "linear")):
        code, output = tool("restore", resampled, aligned.forward, "--like", aligned.image, "-o", back, *order)
        assert code == 0 and said in output
        image, again = load_volume(aligned.image), load_volume(back)
        assert np.corrcoef(image.data.ravel(), again.data.ravel())[0, 1] > 0.97


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """An image and a pose of it."""
    from posepipe.geometry import write_itk

    data = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    image = save_volume(Volume(data, np.diag([-1.0, 1, 2, 1])), tmp_path / "small.nii.gz")
    return image, write_itk(Rigid.from_rotvec([0.2, 0.5, -1], [3, 4, 5]), tmp_path / "small_from-T2w_to-X_mode-image_xfm.txt")


def test_wrong_input_is_reported_with_its_file_and_what_to_do(small: tuple[Path, Path], tool: Any, tmp_path: Path) -> None:
    image, pose = small
    out = tmp_path / "out.nii.gz"
    for command, code, words in (
        (("convert", pose, "--to", "fsl", "-o", tmp_path / "x.mat"), 2, ["x.mat", "FSL", "--moving and --reference"]),
        (("convert", pose, "--to", "lta", "--moving", image, "-o", tmp_path / "x.lta"), 2, ["x.lta", "reference image", "--reference"]),
        (("convert", pose, "--from", "mirtk", "--to", "itk", "-o", tmp_path / "x.txt"), 1, [str(pose), "MIRTK", "--from"]),
        (("convert", tmp_path / "no.txt", "--to", "mirtk", "-o", tmp_path / "x.dof"), 1, ["no.txt: no such transform file"]),
        (("convert", pose, "--to", "fsl", "--moving", tmp_path / "no.nii", "--reference", image, "-o", out), 1, ["no.nii: no such file"]),
        (("reorient", image, pose, "-o", tmp_path / "out.mgz"), 2, ["out.mgz", ".nii or .nii.gz"]),
        (("reorient", image, pose, "-o", image), 2, [str(image), "written over"]),
        (("restore", image, pose, "--like", image, "-o", out), 1, [str(image), "not in the atlas's frame"]),
    ):
        found, output = tool(*command)
        assert found == code and all(word in output for word in words), output
        assert not out.exists() and not list(tmp_path.glob("x.*"))


def test_the_inverse_is_refused_where_its_sidecar_tells(small: tuple[Path, Path], tool: Any, tmp_path: Path) -> None:
    image, pose = small
    pose.with_suffix(".json").write_text('{"InverseOf": "bids::sub-01/anat/forward_xfm.txt"}', encoding="utf-8")
    for command in (("reorient", image, pose), ("restore", image, pose, "--like", image)):
        code, output = tool(*command, "-o", tmp_path / "out.nii.gz")
        assert code == 2 and f"{pose}: is the transform from the atlas to the image; give" in output and "forward_xfm.txt" in output


@pytest.mark.parametrize("form", [form for form in XFM_FORMATS if form != "fsl"])
def test_reorient_takes_any_format_that_does_not_need_the_atlas(small: tuple[Path, Path], tool: Any, tmp_path: Path, form: str) -> None:
    image, pose = small
    other = tmp_path / f"other{XFM_FORMATS[form]}"
    assert tool("convert", pose, "--to", form, "--moving", image, "--reference", image, "-o", other)[0] == 0
    code, output = tool("reorient", image, other, "-o", tmp_path / "out.nii")
    assert code == 0, output
    assert load_volume(tmp_path / "out.nii").same_grid(reorient(load_volume(image), read_itk(pose)))
    fsl = tmp_path / "x.mat"
    assert tool("convert", pose, "--to", "fsl", "--moving", image, "--reference", image, "-o", fsl)[0] == 0
    code, output = tool("reorient", image, fsl, "-o", tmp_path / "no.nii")
    assert code == 2 and "convert --to itk" in output
