"""Real fetuses and newborns against real atlases, turned at random."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.atlas import AtlasLibrary
from posepipe.bench.perturb import turned
from posepipe.brainmask.choose import brain_mask
from posepipe.contrast.check import apparent_contrast
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.mask import given_mask
from posepipe.imaging.volume import load_volume
from posepipe.matching.brain import Brain
from posepipe.matching.comparison import Comparison
from posepipe.matching.target import SPACING, Target
from posepipe.pose.initial import initial_pose
from posepipe.refinement.refine import refine_pose

pytestmark = [pytest.mark.data, pytest.mark.usefixtures("one_thread_no_cache")]


@pytest.fixture(scope="module")
def library(data_dir) -> AtlasLibrary:
    return AtlasLibrary([data_dir / "atlases"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "atlas", "cohort"),
    [
        ("ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz", "CRL", "29"),
        ("ds-neonates/sub-A03/anat/sub-A03_T1w.nii.gz", "Serag", "40"),
    ],
    ids=["fetus", "newborn-T1w"],
)
def test_turned_head_is_found(data_dir, library, path, atlas, cohort):
    image = load_volume(data_dir / path)
    mask = brain_mask(image).volume
    ours = Target.load(library.template(atlas, cohort, "T2w"))
    rng = np.random.default_rng(0)
    for rotation in random_rotations(2, rng):
        new, new_mask, motion = turned(image, mask, rotation, rng)
        compare = Comparison.of(new, new_mask, ours)
        start = initial_pose(new, new_mask, ours, compare=compare)
        pose = refine_pose(new, new_mask, ours, start.pose, method="torch", compare=compare).pose
        # as it lies, the head is in atlas pose
        assert pose.degrees_from(motion) < 6
        assert start.found.lead() is None or start.found.lead() > 0.02


@pytest.mark.parametrize("template", ["T1w", "T2w"])
@pytest.mark.parametrize("own", ["T1w", "T2w"])
def test_the_contrast_of_a_newborn_is_seen(data_dir, library, own, template):
    image = load_volume(data_dir / f"ds-neonates/sub-A03/anat/sub-A03_{own}.nii.gz")
    ours = Target.load(library.template("Serag", "40", template))
    brain = Brain.prepare(image, brain_mask(image).volume, SPACING)
    # as it lies, the head is in atlas pose
    seen, correlation = apparent_contrast(brain, ours, Rigid.about(np.eye(3), ours.brain.center, brain.center))
    assert seen == own and np.sign(correlation) == (1 if own == template else -1)


@pytest.mark.slow
def test_raw_stack_with_its_manual_mask(data_dir, library):
    folder = data_dir / "ds-stacks"
    image = load_volume(folder / "sub-01/anat/sub-01_run-1_T2w.nii.gz")
    mask = load_volume(folder / "derivatives/manual_masks/sub-01/anat/sub-01_run-1_T2w_desc-brain_mask.nii.gz")
    inside = given_mask(mask, image).volume
    ours = Target.load(library.template("CRL", "25", "T2w"))  # nearest in size; the age is not known
    move = Rigid.from_rotvec([1.5, -0.7, 0.9], [10, -5, 20])
    found = []
    for where in (Rigid.identity(), move):
        stack, cut = image.moved(where), inside.moved(where)
        compare = Comparison.of(stack, cut, ours)
        start = initial_pose(stack, cut, ours, age_known=False, compare=compare).pose
        refined = refine_pose(stack, cut, ours, start, method="torch", compare=compare)
        assert refined.similarity["Dice"]["after"] > 0.8
        found.append(refined.pose)
    assert found[1].degrees_from(move @ found[0]) < 5
