"""Rotation of each template cohort to the canonical frame: ``python -m posepipe.bench.canonical ATLAS_DIR > atlases/canonical.toml``.

Cohorts of neighbouring ages are registered with each other, within an atlas and across atlases: by intensities, and by tissue labels
where both have them. The rotations to the common frame are the L1 average of all these measurements. The frame is the mean pose of CRL
weeks 30–37.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..atlas import AtlasLibrary, Template
from ..atlas.sidecars import file_sha256
from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..imaging.sampling import sample, smooth, tensor
from ..imaging.volume import load_volume
from ..matching.brain import Brain
from ..matching.channels import Level, channel
from ..matching.comparison import Comparison
from ..matching.gauss_newton import Term, fit
from ..matching.target import Target

TISSUES: dict[str, dict[str, tuple[int, ...]]] = {
    "CRL": {"white": (1, 8), "ventricles": (2,), "cerebellum": (3,), "cortex": (5,), "deep": (6,), "brainstem": (7,)},
    "FidonSBA": {"white": (1, 8), "ventricles": (2,), "cerebellum": (3,), "cortex": (5,), "deep": (6,), "brainstem": (7,)},
    "CHN": {"white": (3,), "ventricles": (5,), "cerebellum": (6,), "cortex": (2,), "deep": (7,), "brainstem": (8,)},
    "Serag": {"white": (3,), "cortex": (2,)},
}
"""Atlas → tissue → labels in the atlas's own key."""
REFERENCE = ("CRL", range(30, 38))
METHOD = "L1 rotation averaging over rigid registrations with neighbouring cohorts, by intensities and tissues"


@dataclass(eq=False)
class Node:
    """One cohort, loaded for registration."""

    template: Template
    target: Target
    tissues: dict[str, Level]

    @property
    def name(self) -> tuple[str, str]:
        """Atlas and cohort."""
        return self.template.atlas, self.template.cohort


@dataclass(frozen=True, eq=False)
class Edge:
    """The registration of node ``j`` against node ``i``: ``rotation`` (3, 3) maps directions of ``i`` to directions of ``j``."""

    i: int
    j: int
    rotation: Array
    kind: str


def load_nodes(library: AtlasLibrary, names: tuple[str, ...] = ("CRL", "FidonSBA", "CHN", "Serag", "BCP")) -> list[Node]:
    """Every cohort of the atlases that are on this machine."""
    nodes = []
    for name in names:
        if "T2w" not in library.contrasts(name):
            continue
        for template in library.templates(name, "T2w"):
            target = Target.load(template)
            nodes.append(Node(template, target, _tissue_levels(template, target.brain)))
    return nodes


def _tissue_levels(template: Template, brain: Brain) -> dict[str, Level]:
    if template.tissues is None or template.atlas not in TISSUES:
        return {}
    labels = load_volume(template.tissues, dtype=np.int16)
    to_voxel = tensor(np.linalg.inv(labels.affine))
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in brain.image.shape], indexing="ij"), -1)
    where = index.float() * brain.spacing + tensor(brain.origin)
    out = {}
    for tissue, keys in TISSUES[template.atlas].items():
        share = smooth(tensor(np.isin(labels.data, keys))[None], _voxels(1.5, labels.spacing))
        out[tissue] = channel(brain, sample(share, to_voxel, where)[0] * brain.mask)
    return out


def _voxels(millimetres: float, spacing: Array) -> tuple[float, float, float]:
    x, y, z = millimetres / spacing
    return float(x), float(y), float(z)


def connect(a: Node, b: Node, i: int, j: int) -> list[Edge]:
    """Register ``b`` against ``a``, by intensities and by the tissues that both have."""
    compare = Comparison(b.target.brain, a.target)
    start = Rigid.about(np.eye(3), a.target.brain.center, b.target.brain.center)
    pose = compare.refined(start)
    edges = [Edge(i, j, pose.rotation, "intensities")]
    shared = [t for t in a.tissues if t in b.tissues]
    if len(shared) > 2:
        terms = [Term(a.tissues[t], b.tissues[t].points(6000)) for t in shared]
        edges.append(Edge(i, j, compare.rigid(fit(terms, compare.poses(start), 20).poses).rotation, "tissues"))
    return edges


def neighbours(a: Template, b: Template) -> bool:
    """Whether two cohorts are close enough in age to be registered."""
    gap = abs(a.age - b.age)
    if "BCP" in (a.atlas, b.atlas):
        return gap < 14 and min(a.age, b.age) >= 40
    return gap <= (3.1 if a.atlas == b.atlas else 1.1)


def average(n: int, edges: list[Edge], fixed: list[int], rounds: int = 60) -> tuple[Array, Array]:
    """Rotations (n, 3, 3) to the common frame, and the median disagreement of each with its edges in degrees (n,).

    Iteratively reweighted: each rotation in turn is set to the L1 mean of the rotations that its neighbours imply (Hartley et al. 2013).
    Then the frame is rotated so that the mean of the ``fixed`` nodes is the identity.
    """
    rotations = np.broadcast_to(np.eye(3), (n, 3, 3)).copy()
    votes: list[list[tuple[int, Array]]] = [[] for _ in range(n)]
    for e in edges:  # x_j = P x_i and C_i x_i = C_j x_j, so C_j = C_i Pᵀ
        votes[e.j].append((e.i, e.rotation.T))
        votes[e.i].append((e.j, e.rotation))
    for _ in range(rounds):
        for k in range(n):
            if not votes[k]:
                continue
            implied = np.stack([rotations[i] @ p for i, p in votes[k]])
            away = so3.log(implied @ rotations[k].T)
            weight = 1 / np.maximum(np.linalg.norm(away, axis=1), np.radians(0.2))
            rotations[k] = so3.exp((weight[:, None] * away).sum(0) / weight.sum()) @ rotations[k]
    frame = so3.project(rotations[fixed].mean(0))
    rotations = frame.T @ rotations
    residual = [
        np.degrees(np.median([so3.geodesic_distance(rotations[k], rotations[i] @ p) for i, p in votes[k]])) if votes[k] else np.nan
        for k in range(n)
    ]
    return rotations, np.array(residual)


def image_hashes(library: AtlasLibrary, template: Template) -> list[str]:
    """SHA-256 of the images of a template's cohort in each contrast; all share one pose."""
    contrasts = library.contrasts(template.atlas)
    same = [t for contrast in contrasts for t in library.templates(template.atlas, contrast) if t.cohort == template.cohort]
    return [file_sha256(t.image) for t in same]


def main(argv: list[str] | None = None) -> int:
    """Print ``atlases/canonical.toml`` for the atlases in the folder given."""
    folder = Path((argv or sys.argv[1:])[0])
    library = AtlasLibrary([folder])
    nodes = load_nodes(library)
    edges: list[Edge] = []
    for i, a in enumerate(nodes):
        for j in range(i + 1, len(nodes)):
            if neighbours(a.template, nodes[j].template):
                edges += connect(a, nodes[j], i, j)
        print(f"{a.template.space}: {len(edges)} registrations", file=sys.stderr, flush=True)
    fixed = [k for k, n in enumerate(nodes) if n.template.atlas == REFERENCE[0] and round(n.template.age) in REFERENCE[1]]
    rotations, residual = average(len(nodes), edges, fixed)
    print("# Each cohort's rotation to the canonical frame (mean pose of CRL weeks 30-37): x_canonical = R x_template, RAS.")
    print("# Made by `python -m posepipe.bench.canonical ATLAS_DIR`; do not edit.")
    print("# images: SHA-256 of the image files that it was measured on (contrasts of a cohort lie in one pose); others do not take it.")
    print(f"# residual_degrees: median disagreement with the registrations ({len(edges)} in all) that touch the cohort.")
    for node, rotation, r in zip(nodes, rotations, residual, strict=True):
        vector = ", ".join(f"{v:.3f}" for v in np.degrees(so3.log(rotation)))
        print(f'\n[{node.template.atlas}.{node.template.cohort}]\nrotvec_degrees = [{vector}]')
        print("images = [" + ", ".join(f'"{digest}"' for digest in image_hashes(library, node.template)) + "]")
        print(f'method = "{METHOD}"\nresidual_degrees = {r:.2f}')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
