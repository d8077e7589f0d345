"""Choice of atlas and cohort for an age, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AgeError, AtlasError, UsageError
from .library import CONTRASTS, AtlasLibrary, Template
from .manifest import Manifest, is_age

FETAL_ORDER = ("CRL", "CHN", "FidonSBA")
NEONATAL_ORDER = ("Serag", "dhcpVol", "BCP")
BIRTH_WEEKS = 38.0
"""Age, weeks, above which an image without other signs counts as a newborn's: fetal atlases end there. A convention."""
PRETERM_WEEKS = (28.0, 44.0)
"""Ages, weeks, at which a T1w image counts as a newborn's: fetuses are hardly ever scanned so. A convention."""
SLACK_WEEKS = 0.5
"""An age up to this far outside an atlas, weeks, still gets its first or last cohort: half the distance of cohorts."""
FAR_WEEKS = 2.0
"""A cohort farther from the age than this, weeks, gives a warning. A convention."""


@dataclass(frozen=True)
class Choice:
    """The template to align to, its contrast, the reason for the choice, and warnings for the user."""

    template: Template
    contrast: str
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """The nearest template of one atlas, and the distance (weeks) of the age from the range that it covers (0: covered)."""

    template: Template
    outside: float
    missing: str | None

    @property
    def covers(self) -> bool:
        return self.outside <= 0


def choose_template(
    library: AtlasLibrary,
    *,
    age: float | None,
    contrast: str,
    atlas: str = "auto",
    age_policy: str = "error",
    stage: str | None = None,
    onto: str | None = None,
) -> Choice:
    """Choose the template for an image of ``age`` weeks in ``contrast`` (``T1w`` or ``T2w``).

    **Cohort:** the nearest in age; the younger one of two equally near. The age must lie within half a cohort step plus
    0.5 week of it; the step is the distance to the atlas's next cohort on that side (at an end: the last step; 1
    week for an atlas with one cohort). Otherwise the age is out of range: an error, or a warning with
    ``age_policy="nearest"``. A warning is also given for a cohort more than 2 weeks away, in an atlas with large steps.

    **Contrast:** the image's own (or ``onto``, for an image that will be converted) if the atlas has it for that age,
    else the atlas's T2w with a warning.

    **``atlas="auto"``:** the first atlas in this order that covers the age. Fetal (up to 38 weeks): CRL, CHN, FidonSBA (last,
    as it is an atlas of spina bifida). Neonatal: Serag, dhcpVol, BCP. An image is assumed to be of a newborn if ``stage`` is
    ``"neonatal"``, if the age is above 38 weeks, or if it is T1w at 28 to 44 weeks (preterm newborns; fetuses are rarely
    scanned in T1w). ``stage="fetal"`` overrides both assumptions. The other order follows, with a warning, then atlases added
    by the user.

    Raises :class:`~posepipe.errors.AgeError` for no age, an impossible age or one outside;
    :class:`~posepipe.errors.AtlasError` when the atlas is unknown or not on this machine;
    :class:`~posepipe.errors.UsageError` for unknown options.
    """
    _check_options(contrast, age_policy, stage, onto)
    if age is None:
        msg = (
            "no age is known for this image; give it in weeks with --age, or in a column of participants.tsv, or have it "
            "estimated: --age estimate"
        )
        raise AgeError(msg)
    if not is_age(age):
        msg = f"{age} is not an age in weeks; give gestational (postmenstrual) weeks, for example --age 29.4"
        raise AgeError(msg)
    wanted = onto or contrast
    if atlas != "auto":
        return _named(library, atlas, age, wanted, age_policy)
    return _auto(library, age, wanted, age_policy, *_guess_stage(age, contrast, stage))


def _check_options(contrast: str, age_policy: str, stage: str | None, onto: str | None) -> None:
    for name, value, allowed in (
        ("contrast", contrast, CONTRASTS),
        ("contrast of the template", onto, (None, *CONTRASTS)),
        ("age policy", age_policy, ("error", "nearest")),
        ("stage", stage, (None, "fetal", "neonatal")),
    ):
        if value not in allowed:
            msg = f"the {name} is one of {', '.join(str(a) for a in allowed if a)}, not {value!r}"
            raise UsageError(msg)


def _named(library: AtlasLibrary, atlas: str, age: float, contrast: str, age_policy: str) -> Choice:
    library.templates(atlas, _offered(library, atlas, contrast)[0])  # raises when the atlas is unknown or not here
    fit = _fit(library, atlas, age, contrast)
    if not fit.covers and age_policy == "error":
        raise AgeError(_outside(library, atlas, age, fit, contrast))
    return _choice(library, fit, age, contrast, "given by name", [])


def _auto(library: AtlasLibrary, age: float, contrast: str, age_policy: str, first: str, why: str) -> Choice:
    """``first`` is the stage whose atlases are preferred, ``why`` the reason."""
    orders = {"fetal": FETAL_ORDER, "neonatal": NEONATAL_ORDER}
    second = "neonatal" if first == "fetal" else "fetal"
    # atlases added by the user may be of any stage; those that state the other stage come last
    added = sorted(library.added(), key=lambda name: library.stage(name) == second)
    names = [*orders[first], *orders[second], *added]
    fits, passed = {}, []
    for name in names:
        if not library.contrasts(name):
            passed.append(f"{name} is not on this machine")
            continue
        fits[name] = _fit(library, name, age, contrast)
        if fits[name].covers:
            return _auto_choice(library, fits[name], age, contrast, first, why, [] if name in added else passed)
        passed.append(f"{name} does not cover {age:g} weeks")
    if not fits:
        looked = ", ".join(str(d) for d in library.dirs)
        best = library.manifests[orders[first][0] if first == "fetal" else "dhcpVol"]
        msg = (
            f"no atlas was found on this machine (looked in {looked}); get one: {best.how_to_get}, "
            "or name its folder with --atlas-dir"
        )
        raise AtlasError(msg)
    nearest = min(fits, key=lambda name: fits[name].outside)
    if age_policy == "error":
        raise AgeError(_outside(library, nearest, age, fits[nearest], contrast))
    return _auto_choice(library, fits[nearest], age, contrast, first, why, ["no atlas here covers the age"])


def _guess_stage(age: float, contrast: str, stage: str | None) -> tuple[str, str]:
    """``fetal`` or ``neonatal``, and the reason."""
    if stage:
        return stage, f"the image is {stage}"
    if age > BIRTH_WEEKS:
        return "neonatal", f"above {BIRTH_WEEKS:g} weeks the image is taken as a newborn's"
    if contrast == "T1w" and PRETERM_WEEKS[0] <= age <= PRETERM_WEEKS[1]:
        return "neonatal", "T1w at this age is taken as a preterm newborn's"
    return "fetal", f"up to {BIRTH_WEEKS:g} weeks the image is taken as a fetus's"


def _auto_choice(
    library: AtlasLibrary, fit: _Fit, age: float, contrast: str, stage: str, why: str, passed: list[str]
) -> Choice:
    name = fit.template.atlas
    warnings = []
    manifest = library.manifests.get(name)
    if manifest and manifest.stage != stage:
        warnings.append(f"{name} is a {manifest.stage} atlas, but {why}; name another with --atlas if you have one")
    if manifest and manifest.caution:
        warnings.append(f"{name} is {manifest.caution}")
    reason = f"chosen because {why}" + (f" and {'; '.join(passed)}" if passed else "")
    return _choice(library, fit, age, contrast, reason, warnings)


def _choice(library: AtlasLibrary, fit: _Fit, age: float, contrast: str, why: str, warnings: list[str]) -> Choice:
    template = fit.template
    nearest = f"cohort {template.cohort} ({template.age:g} weeks) is the nearest to {age:g} weeks"
    reason = f"{template.space}: {why}; {nearest}"
    if template.contrast != contrast:
        name, other = template.atlas, template.contrast
        warnings.append(f"{name} has no {contrast} image for this age: aligned to its {other} instead")
    if not fit.covers:
        warnings.append(
            f"{age:g} weeks is outside what {template.atlas} covers here: used its nearest cohort, "
            f"{template.cohort} ({template.age:g} weeks)" + _missing(library, template.atlas, fit)
        )
    elif abs(template.age - age) > FAR_WEEKS:
        away = abs(template.age - age)
        warnings.append(f"the nearest cohort of {template.atlas}, {template.cohort}, is {away:.1f} weeks away")
    return Choice(template, template.contrast, reason, (*warnings, *template.notes))


def _fit(library: AtlasLibrary, atlas: str, age: float, contrast: str) -> _Fit:
    """The nearest template in the first available contrast that covers the age; if none does, in the first contrast."""
    fits = [_fit_contrast(library, atlas, age, c) for c in _offered(library, atlas, contrast)]
    return next((f for f in fits if f.covers), fits[0])


def _offered(library: AtlasLibrary, atlas: str, contrast: str) -> list[str]:
    """Contrasts to try, best first; the requested one if the atlas is missing (the error then names the atlas)."""
    have = library.contrasts(atlas)
    return [c for c in dict.fromkeys((contrast, "T2w", "T1w")) if c in have] or [contrast]


def _fit_contrast(library: AtlasLibrary, atlas: str, age: float, contrast: str) -> _Fit:
    template = min(library.templates(atlas, contrast), key=lambda t: (round(abs(t.age - age), 6), t.age))
    known = library.ages(atlas)
    below = [a for a in known.values() if a < template.age]
    above = [a for a in known.values() if a > template.age]
    steps = {"down": template.age - max(below) if below else None, "up": min(above) - template.age if above else None}
    side, other = ("up", "down") if age >= template.age else ("down", "up")
    step = steps[side] or steps[other] or 1.0
    outside = round(abs(age - template.age) - (step / 2 + SLACK_WEEKS), 6)
    nearest = min(known, key=lambda label: (round(abs(known[label] - age), 6), known[label]))
    missing = nearest if abs(known[nearest] - age) < abs(template.age - age) - 1e-6 else None
    return _Fit(template, outside, missing)


def _outside(library: AtlasLibrary, atlas: str, age: float, fit: _Fit, contrast: str) -> str:
    here = [t.age for t in library.templates(atlas, fit.template.contrast)]
    covering = [
        f"{name} (on this machine)" if library.contrasts(name) else f"{name} ({manifest.how_to_get})"
        for name, manifest in library.manifests.items()
        if name != atlas and _would_cover(library, name, manifest, age, contrast)
    ]
    others = f"; atlases that cover it: {', '.join(covering)}" if covering else "; no atlas posepipe knows covers it"
    return (
        f"{age:g} weeks is outside what the atlas {atlas} covers here ({min(here):g} to {max(here):g} weeks)"
        f"{_missing(library, atlas, fit)}; check the age and its unit, or use --age-policy nearest "
        f"to align to cohort {fit.template.cohort}{others}"
    )


def _missing(library: AtlasLibrary, atlas: str, fit: _Fit) -> str:
    if fit.missing is None:
        return ""
    manifest = library.manifests.get(atlas)
    get = f" (get it: {manifest.how_to_get})" if manifest else ""
    return f"; its cohort {fit.missing} is nearer but not on this machine{get}"


def _would_cover(library: AtlasLibrary, name: str, manifest: Manifest, age: float, contrast: str) -> bool:
    """Whether the atlas covers the age: by its cohorts on this machine, else by all its cohorts."""
    if library.contrasts(name):
        return _fit(library, name, age, contrast).covers
    ages = sorted(manifest.ages.values())
    margin = [(b - a) / 2 + SLACK_WEEKS for a, b in ((ages[0], ages[1]), (ages[-2], ages[-1]))]
    return ages[0] - margin[0] <= age <= ages[-1] + margin[1]
