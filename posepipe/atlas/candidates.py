"""The candidate cohorts for an image of unknown age."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AtlasError
from .choose import FETAL_ORDER, NEONATAL_ORDER
from .library import AtlasLibrary, Template

GAP_WEEKS, MOST_WEEKS = 1.0, 4.0
"""A further atlas contributes cohorts that are more than ``GAP_WEEKS`` outside the range covered so far and at most ``MOST_WEEKS`` from the
nearest cohort: an age cannot be estimated between distant cohorts."""


@dataclass(frozen=True)
class CohortSeries:
    """Cohorts by increasing age that are compared with each other: those of one atlas, extended by others of the same stage.

    ``stage`` is ``fetal``, ``neonatal``, or empty if not stated.
    """

    stage: str
    templates: tuple[Template, ...]

    @property
    def name(self) -> str:
        """The atlases in it, for messages."""
        return " and ".join(dict.fromkeys(t.atlas for t in self.templates))


def candidates(library: AtlasLibrary, *, contrast: str, atlas: str = "auto") -> tuple[CohortSeries, ...]:
    """The candidate cohorts for an image in ``contrast`` of unknown age; at least one.

    For a named atlas, all its cohorts. With ``auto``, one series for each stage: the first atlas on this machine in the order of
    :func:`~posepipe.atlas.choose_template`, extended by those cohorts of later atlases that continue its range of ages. The series are
    compared by their best match. Atlases added by the user are used only if none of these is on this machine. Each cohort has the image's
    contrast if the atlas has it, else T2w.

    Raises :class:`~posepipe.errors.AtlasError` when the atlas is unknown or none is on this machine.
    """
    if atlas != "auto":
        found = [CohortSeries(library.stage(atlas), tuple(_cohorts(library, atlas, contrast)))]
        if not found[0].templates:
            library.templates(atlas, contrast)  # raises, saying what is missing and where it was looked for
    else:
        orders = {"fetal": FETAL_ORDER, "neonatal": NEONATAL_ORDER}
        found = [CohortSeries(stage, _joined(library, order, contrast)) for stage, order in orders.items()]
        if not any(series.templates for series in found):
            found = [CohortSeries(library.stage(name), tuple(_cohorts(library, name, contrast))) for name in library.added()]
    some = tuple(series for series in found if series.templates)
    if not some:
        looked = ", ".join(str(folder) for folder in library.dirs)
        msg = f"no atlas was found on this machine to estimate an age by (looked in {looked}); name its folder with --atlas-dir"
        raise AtlasError(msg)
    return some


def end_templates(library: AtlasLibrary, *, contrast: str, atlas: str = "auto") -> tuple[Template, ...]:
    """The youngest and the oldest cohort of each of the :func:`candidates`."""
    return tuple(t for series in candidates(library, contrast=contrast, atlas=atlas) for t in (series.templates[0], series.templates[-1]))


def _joined(library: AtlasLibrary, names: tuple[str, ...], contrast: str) -> tuple[Template, ...]:
    joined: list[Template] = []
    for name in names:
        cohorts = _cohorts(library, name, contrast)
        if joined:
            below = [t for t in reversed(cohorts) if t.age < joined[0].age - GAP_WEEKS]
            above = [t for t in cohorts if t.age > joined[-1].age + GAP_WEEKS]
            joined = [*reversed(_near(below, joined[0])), *joined, *_near(above, joined[-1])]
        else:
            joined = cohorts
    return tuple(joined)


def _near(templates: list[Template], last: Template) -> list[Template]:
    """The first ``templates`` up to a gap of more than :data:`MOST_WEEKS`; ``last`` precedes the first."""
    found: list[Template] = []
    for template in templates:
        if abs(template.age - last.age) > MOST_WEEKS:
            break
        found.append(template)
        last = template
    return found


def _cohorts(library: AtlasLibrary, atlas: str, contrast: str) -> list[Template]:
    """One template per cohort, by age: in ``contrast`` if available."""
    have = library.contrasts(atlas)
    by_label: dict[str, Template] = {}
    for one in dict.fromkeys((contrast, "T2w", "T1w")):
        for template in library.templates(atlas, one) if one in have else ():
            by_label.setdefault(template.cohort, template)
    return sorted(by_label.values(), key=lambda t: t.age)
