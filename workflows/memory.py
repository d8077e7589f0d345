"""Memory of a node, by the number of voxels of its image."""

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
x86-64, two cores, Python 3.11, torch on the CPU. Memory of the whole process, including data of earlier nodes in the same worker."""
IDLE_GB = 0.94
"""Memory of an idle worker: the largest peak of nodes that only copy files (``outputs``), measured as :data:`NEEDS`."""
MARGIN = 1.1
"""Factor on the measured memory, for other libraries and systems. It need not cover several images in a process: of six newborns' images in
sequence, the third to sixth took at most 1.01 times the second (0.79 GB)."""


def memory_gb(node: str, voxels: int) -> float:
    """Memory (GB, 10⁹ bytes) that the node of this name (:data:`NEEDS`) needs for an image of so many ``voxels``.

    >>> round(memory_gb("mask", 32_768_000), 2), round(memory_gb("mask", 2_000_000), 2)
    (2.09, 1.08)
    """
    base, slope = NEEDS[node]
    return MARGIN * (base + slope * voxels / 1e6)
