"""The card of a trained network: what it is for, what it was made from, what it may be used for, how well it does."""

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
    "refiner": "the pose left of a brain that is already nearly upright, from dense canonical coordinates",
    "posenet": "the rotation of a brain in any orientation, regressed as by Salehi et al. 2018, §2.3 (Pose-Net)",
    "slice": "the pose of one slice of a brain in any orientation, up to the twin that shows the same, from dense canonical coordinates",
    "slice-pose": "the rotation and the number of one slice of a brain, regressed as by Salehi et al. 2018, §2.3 and §3.1 (slice network)",
    "locator": "finding places in a whole scan that may be a brain's",
    "scan": "telling of each voxel of an unmasked crop whether it is brain, and where in the canonical brain it lies",
    "outline": "the outline of a brain that was found, from an unmasked crop about it",
    "contrast": "T2-like slices of T1-weighted newborn brains, learnt from pairs (conditional GAN of Salehi et al. 2018, §3.3; pix2pix)",
    "contrast-unpaired": "T2-like slices of T1-weighted newborn brains, learnt without pairs (cycleGAN)",
    "correction": "the small pose between a reference and a roughly oriented brain, as by Salehi et al. 2018, §2.4 (Correction-Net)",
}
_VALIDATED = {
    "poses": "Synthesised images of the brains that validated, half by the recipe, half undamaged: a check of the training, not a "
    "measurement on real images.",
    "scans": "Crops about and beside the brains that validated, in made-up heads and surroundings: a check of the training, not a "
    "measurement on real scans.",
    "single": "Synthesised slices of the brains that validated, half by the recipe, half undamaged. Errors are to the nearer of the two "
    "poses that show the same, where they are not said to tell twins apart: a check of the training, not a measurement on real images.",
    "slices": "Slices of the brains that validated, undisturbed: a check of the training, not a measurement on whole images.",
}
_LIMITS = {
    "poses": "Brains of the ages and kinds above, cut out by a mask. A network cannot tell a brain from its mirror image.",
    "scans": "Brains of the ages and kinds above. Half of the surroundings were made up. A network cannot tell a brain from its mirror "
    "image.",
    "single": "Brains of the ages and kinds above. A slice cannot tell its pose from its twin, mirrored about the midplane and the slice.",
    "slices": "Newborn brains of the ages above, cut out by a mask. What it draws is made to look right and not measured: it serves "
    "alignment, and nothing may be read off it (volumes, lesions, signal).",
}
_FREE = re.compile(r"\b(CC0|PDDL|MIT|BSD|Apache|public domain|CC[ -]BY(?![ -]*(NC|ND)))\b", re.IGNORECASE)
_LIMITED = re.compile(r"non-?commercial|research|\b(NC|ND|GPL)\b|General Public", re.IGNORECASE)


@dataclass(frozen=True)
class Made:
    """How a network came about. ``leave_out`` names the groups of the sources that were not used, ``figures`` are of the validation,
    ``hours`` of training on ``machine``, ``generation_share`` of them making images."""

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
    """Group → terms of use, of all that trained or validated."""
    manifests = load_manifests()
    out = {}
    for group in sorted({p.group for p in sources.pictures} - set(leave_out)):
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


def card_text(made: Made, sources: Sources, scenes: Scenes | None = None) -> str:
    """The card, Markdown."""
    data = data_terms(sources, made.leave_out, scenes)
    about = "slices" if isinstance(made.recipe, SlabRecipe) else "scans" if isinstance(made.recipe, ScanRecipe) else "poses"
    seen = f"three neighbouring slices, learnt at {made.size}² pixels" if about == "slices" else f"a cube of {made.size} voxels a side"
    if isinstance(made.recipe, SliceRecipe):
        about, seen = "single", f"a slice of {made.size}² pixels, the age's brain size known"
    lines = [
        f"# {made.network}",
        "",
        f"For {PURPOSES[made.network]}. Input: {seen}.",
        "",
        f"**Terms:** {terms_line(data)}.",
        "",
        "## Data",
        "",
        "| group | brains that trained | pictures | brains that validated | terms |",
        "|---|---|---|---|---|",
        *[_group_row(sources, scenes, group, terms) for group, terms in data.items()],
        "",
        f"Left out on purpose: {', '.join(made.leave_out) or 'nothing'}. Images were made on the fly from these pictures.",
        "",
        "## Training",
        "",
        f"{made.schedule.total} steps of {made.schedule.batch} images{_stages(made.schedule)}, seed {made.seed}; {made.hours:.2g} hours on "
        f"{made.machine}, {made.images_s:.0f} images a second, {100 * made.generation_share:.0f} % of the time making them. {made.date}, "
        f"posepipe {made.version}.",
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
    mine = [p for p in sources.pictures if p.group == group]
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
    told = {
        "median": "median rotation error {:.2f}°",
        "mean": "mean rotation error {:.2f}°",
        "p95": "95th percentile {:.2f}°",
        "over15": "more than 15° off: {:.1%}",
        "dice": "mean overlap (Dice) {:.3f}",
        "dice10": "overlap that nine of ten exceed {:.3f}",
        "alarms": "scans without brain in which brain is seen {:.1%}",
        "mae": "mean absolute error inside the brain, of intensities from 0 to 1, {:.3f}",
        "psnr": "PSNR inside the brain {:.1f} dB",
        "outright": "median rotation error, twins told apart, {:.2f}°",
        "outright_over15": "more than 15° off, twins told apart: {:.1%}",
        "slices": "mean error of the slice number {:.2f}",
        "shift": "mean translation error {:.3f} brain radii",
    }
    return told.get(name, name + " {:.4g}").format(value)
