"""How much memory a node needs, by the voxels of its image."""

from __future__ import annotations

NEEDS = {
    "mask": (0.92, 0.030),
    "conversion": (0.68, 0.015),
    "initial_pose": (1.17, 0.003),
    "refinement": (1.05, 0.006),
    "slices": (0.68, 0.011),
    "quality": (0.92, 0.010),
    "resampling": (0.92, 0.014),
    "figure": (0.93, 0.009),
    "outputs": (0.94, 0.000),
}
"""Name of a node → GB for an image of no voxels, and for each 10⁶ of them: the lowest line above all peaks that were measured (by
``python -m posepipe.bench.memory DATA -o FOLDER``; the table is in docs/tutorials/hpc.md).
16 images of 1.6 to 32.8 million voxels in 8 processes,
one thread each: the fetus (ds-fetal), A01 and A02 (ds-neonates), E01 (ds-epi), run 1 of ds-stacks, the last and A02 on finer grids too;
x86-64, two cores, Python 3.11, torch on the CPU. It is the whole process that counts, with what earlier nodes have left in a worker."""
IDLE_GB = 0.94
"""What a worker keeps that has nothing to do: the largest peak of nodes that only copy files (``outputs``), measured as :data:`NEEDS`."""
MARGIN = 1.1
"""Nodes ask for so many times what was measured: a tenth for other libraries and systems, which were not. More images in a process need
none: of six newborns' images, one after the other, the third to sixth took 1.01 times the second at most (0.79 GB)."""


def memory_gb(node: str, voxels: int) -> float:
    """Memory (GB, 10⁹ bytes) that the node of this name (:data:`NEEDS`) needs for an image of so many ``voxels``.

    >>> round(memory_gb("mask", 32_768_000), 2), round(memory_gb("mask", 2_000_000), 2)
    (2.09, 1.08)
    """
    base, slope = NEEDS[node]
    return MARGIN * (base + slope * voxels / 1e6)
