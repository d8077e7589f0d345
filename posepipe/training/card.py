"""The model card of a trained network: purpose, terms of use, training data, training, validation errors and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..atlas import load_manifests
from .engine import Schedule
from .scans import ScanRecipe
from .scenes import Scenes
from .slabs import SlabRecipe
from .slices import SliceRecipe
from .sources import Sources
from .synthesis import Recipe

PURPOSES: Mapping[str, str] = {
    "coordinates": "the pose of a brain in any orientation, from dense canonical coordinates",
    "refiner": "the residual pose of a brain that is already nearly upright, from dense canonical coordinates",
    "posenet": "the rotation of a brain in any orientation, regressed as by Salehi et al. 2018, §2.3 (Pose-Net)",
    "slice": "the pose of one slice of a brain in any orientation, up to the mirror-symmetric pose that shows the same slice (the twin), "
    "from dense canonical coordinates",
    "slice-pose": "the rotation and the number of one slice of a brain, regressed as by Salehi et al. 2018, §2.3 and §3.1 (slice network)",
    "locator": "detecting brain candidates in a whole scan: centre and radius",
    "scan": "brain probability and canonical coordinates of each voxel of an unmasked crop",
    "outline": "segmentation of the brain in an unmasked crop about it",
    "contrast": "T2-like slices of T1-weighted newborn brains, learnt from pairs (conditional GAN of Salehi et al. 2018, §3.3; pix2pix)",
    "contrast-unpaired": "T2-like slices of T1-weighted newborn brains, learnt without pairs (cycleGAN)",
    "correction": "the small pose between a reference and a roughly oriented brain, as by Salehi et al. 2018, §2.4 (Correction-Net)",
}
_VALIDATED = {
    "poses": "Synthesised images of the validation brains, half of them by the recipe, half without corruption. This checks the training; "
    "it is not a measurement on real images.",
    "scans": "Crops about and beside the validation brains, in synthetic heads and surroundings. This checks the training; it is not a "
    "measurement on real scans.",
    "single": "Synthesised slices of the validation brains, half of them by the recipe, half without corruption. Errors are to the nearer "
    "of the true pose and its twin, unless they are said to be to the true pose. This checks the training; it is not a measurement on "
    "real images.",
    "slices": "Slices of the validation brains without augmentation. This checks the training; it is not a measurement on whole images.",
}
_LIMITS = {
    "poses": "Masked brains of the ages and kinds above. The network cannot distinguish a brain from its mirror image.",
    "scans": "Brains of the ages and kinds above. Half of the surroundings were synthetic. The network cannot distinguish a brain from its "
    "mirror image.",
    "single": "Brains of the ages and kinds above. From one slice the pose cannot be distinguished from its twin, mirrored about the "
    "midplane and the slice.",
    "slices": "Masked newborn brains of the ages above. Synthesised intensities are not measurements: they serve alignment, and volumes, "
    "lesions or signal must not be read from them.",
}
_FREE = re.compile(r"\b(CC0|PDDL|MIT|BSD|Apache|public domain|CC[ -]BY(?![ -]*(NC|ND)))\b", re.IGNORECASE)
_LIMITED = re.compile(r"non-?commercial|research|\b(NC|ND|GPL)\b|General Public", re.IGNORECASE)


@dataclass(frozen=True)
class TrainingSummary:
    """What the card says of a training. ``leave_out``: groups of the sources that were not used. ``figures``: validation errors.
    ``hours``: duration on ``machine``, of which the share ``generation_share`` was spent on synthesising images; ``images_s``: images
    trained on per second. ``extra``: further options, name → value."""

    network: str
    size: int
    recipe: Recipe | SlabRecipe
    schedule: Schedule
    leave_out: tuple[str, ...]
    seed: int
    extra: Mapping[str, object]
    figures: Mapping[str, float]
    hours: float
    images_s: float
    generation_share: float
    machine: str
    date: str
    version: str


def data_terms(sources: Sources, leave_out: tuple[str, ...] = (), scenes: Scenes | None = None) -> dict[str, str]:
    """Group → terms of use, of all data used in training or validation."""
    manifests = load_manifests()
    out = {}
    for group in sorted({p.group for p in sources.volumes} - set(leave_out)):
        stated = sources.terms.get(group, "not stated")
        # sources of an earlier version hold no terms
        out[group] = manifests[group].licence if stated == "not stated" and group in manifests else stated
    return out | dict(scenes.terms if scenes else {})


def terms_line(data: Mapping[str, str]) -> str:
    """One line on what a network trained on ``data`` (group → terms) may be used for.

    >>> terms_line({"FidonSBA": "CC0 1.0"})
    'free for any use, as all of its training data: FidonSBA (CC0 1.0)'
    >>> terms_line({"FidonSBA": "CC0 1.0", "CRL": "non-commercial research"})
    'research use only, for the terms of some of its training data: CRL (non-commercial research)'
    """
    bound = {g: t for g, t in data.items() if _LIMITED.search(t) or not _FREE.search(t)}
    shown = "; ".join(f"{g} ({t})" for g, t in (bound or data).items())
    if bound:
        return f"research use only, for the terms of some of its training data: {shown}"
    return f"free for any use, as all of its training data: {shown}"


def card_text(made: TrainingSummary, sources: Sources, scenes: Scenes | None = None) -> str:
    """The model card as Markdown."""
    data = data_terms(sources, made.leave_out, scenes)
    about = "slices" if isinstance(made.recipe, SlabRecipe) else "scans" if isinstance(made.recipe, ScanRecipe) else "poses"
    network_input = f"a cube of {made.size} voxels a side"
    if about == "slices":
        network_input = f"three neighbouring slices, learnt at {made.size}² pixels"
    if isinstance(made.recipe, SliceRecipe):
        about, network_input = "single", f"a slice of {made.size}² pixels, scaled by the brain size at its age"
    lines = [
        f"# {made.network}",
        "",
        f"For {PURPOSES[made.network]}. Input: {network_input}.",
        "",
        f"**Terms:** {terms_line(data)}.",
        "",
        "## Data",
        "",
        "| group | training brains | volumes | validation brains | terms |",
        "|---|---|---|---|---|",
        *[_group_row(sources, scenes, group, terms) for group, terms in data.items()],
        "",
        f"Left out on purpose: {', '.join(made.leave_out) or 'nothing'}. Training images were synthesised on the fly from these volumes.",
        "",
        "## Training",
        "",
        f"{made.schedule.total} steps of {made.schedule.batch} images{_stages(made.schedule)}, seed {made.seed}; {made.hours:.2g} hours on "
        f"{made.machine}, {made.images_s:.0f} images a second, {100 * made.generation_share:.0f} % of the time synthesising them. "
        f"{made.date}, posepipe {made.version}.",
        "",
        *_table("schedule", asdict(made.schedule)),
        *_table("recipe", asdict(made.recipe)),
        *_table("further", dict(made.extra)),
        "## Validation",
        "",
        _VALIDATED[about],
        "",
        *[f"- {_figure(name, value)}" for name, value in made.figures.items()],
        "",
        "## Limits",
        "",
        _LIMITS[about],
    ]
    return "\n".join(lines) + "\n"


def _stages(schedule: Schedule) -> str:
    first, second = schedule.steps
    return f" ({first} with the first loss, {second} with the geodesic one)" if second else ""


def _group_row(sources: Sources, scenes: Scenes | None, group: str, terms: str) -> str:
    if scenes and group in scenes.terms:
        return f"| {group} | – | {sum(s.group == group for s in scenes.scenes)} whole scans | – | {terms} |"
    mine = [p for p in sources.volumes if p.group == group]
    train = [p for p in mine if p.part == "train"]
    kinds = [f"{sum(p.kind == kind for p in train)} {kind}" for kind in ("T2w", "T1w", "labels") if any(p.kind == kind for p in train)]
    names = {part: len({p.name for p in mine if p.part == part}) for part in ("train", "validation")}
    return f"| {group} | {names['train']} | {', '.join(kinds) or 'none'} | {names['validation']} | {terms} |"


def _table(title: str, content: Mapping[str, object]) -> list[str]:
    if not content:
        return []
    return [f"{title.capitalize()}: " + ", ".join(f"{k} {_value(v)}" for k, v in content.items()) + ".", ""]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{k} {_value(v)}" for k, v in value.items()) + ")"
    if isinstance(value, (tuple, list)):
        return " + ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(name: str, value: float) -> str:
    formats = {
        "median": "median rotation error {:.2f}°",
        "mean": "mean rotation error {:.2f}°",
        "p95": "95th percentile {:.2f}°",
        "over15": "more than 15° off: {:.1%}",
        "dice": "mean overlap (Dice) {:.3f}",
        "dice10": "overlap that nine of ten exceed {:.3f}",
        "alarms": "crops without brain in which brain is segmented {:.1%}",
        "mae": "mean absolute error inside the brain, of intensities from 0 to 1, {:.3f}",
        "psnr": "PSNR inside the brain {:.1f} dB",
        "outright": "median rotation error to the true pose {:.2f}°",
        "outright_over15": "more than 15° off the true pose: {:.1%}",
        "slices": "mean error of the slice number {:.2f}",
        "shift": "mean translation error {:.3f} brain radii",
    }
    return formats.get(name, name + " {:.4g}").format(value)
