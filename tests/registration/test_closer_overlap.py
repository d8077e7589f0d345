"""Which poses a closer look drops because too little of the image lies inside the template."""

from __future__ import annotations

import torch

from posepipe.registration import closer
from posepipe.registration.comparison import Comparison
from posepipe.registration.fit import Poses, fit


def test_poses_are_kept_from_an_overlap_of_a_half(head, target):
    """A brain pushed out of its template along a line, a little at a time."""
    compare = Comparison(head.brain, target)
    edges, inside = compare.rough
    right = compare.poses(head.pose)
    steps = torch.linspace(0, 1.6 * target.brain.radius, 120)
    shift = right.shift + steps[:, None] * torch.tensor([0.0, 0.6, 0.8])
    line = Poses(right.rotation.expand(120, 3, 3), shift, right.log_scale.expand(120))
    overlap = fit((inside,), line, 0).overlap
    assert ((overlap > 0.45) & (overlap < 0.5)).any() and ((overlap > 0.5) & (overlap < 0.55)).any()
    kept = closer._judged((inside, edges), line, 0)
    torch.testing.assert_close(kept.poses.shift, line.shift[overlap >= 0.5])
