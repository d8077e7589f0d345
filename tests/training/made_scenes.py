"""A synthetic scan with a brain in it, for tests of the training of scan networks."""

from __future__ import annotations

import numpy as np

from posepipe.imaging.volume import Volume
from posepipe.training.scenes import Scene, scene_of


def scene(turn: np.ndarray | None = None, group: str = "one", flip: bool = False, n: int = 1) -> Scene:
    """A brain with three axes of its own, bright ahead of its middle, in a scan of 2 × 2 × 4 mm whose head is turned by ``turn``."""
    affine = np.diag([-2.0 if flip else 2.0, 2.0, 4.0, 1.0])
    affine[:3, 3] = 100.0 if flip else -30.0, 10, 20
    index = np.moveaxis(np.indices((50, 48, 26)), 0, -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    center = affine[:3, :3] @ [25, 24, 13] + affine[:3, 3]
    x = (world - center) @ (np.eye(3) if turn is None else turn)
    inside = ((x / [26, 32, 22]) ** 2).sum(-1) < 1
    image = np.where(inside, 400 + 8 * x[..., 1] + 4 * x[..., 2], 60)
    return scene_of(f"{group}-{n}", group, Volume(image.astype(np.float32), affine), Volume(inside, affine), turn)
