"""Anatomy of the phantom: the size of the brain and the implicit solids of its parts, by postmenstrual week.

All sizes are in millimetres of a 30-week brain centred on its own mask; the grid is scaled to other ages axis by axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Field, Place, Points, capsule, ellipsoid, sheet, smooth_cut, smooth_union, stripes, tube

AGES = (21.0, 44.0)

# Standard deviation of the brain mask's voxels along x, y and z (mm): low + range · logistic((age − 25.5) / 6.5), a fit
# to the published growth of fetal brain atlases between 21 and 38 weeks and of newborn ones to 44.
_SD_LOW = np.array([6.97, 9.05, 5.94])
_SD_RANGE = np.array([17.17, 18.47, 14.78])
# the same of the solids below, unscaled, and the centre of their mask
_SD_SOLID = np.array([18.28, 20.81, 15.66])
_CENTRE_SOLID = np.array([0.0, -1.0, 0.4])


@dataclass(frozen=True)
class Anatomy:
    """Sizes that change with age and from one brain to the next (mm at 30 weeks' scale unless said otherwise).

    ``scale`` is this age's size against 30 weeks along x, y, z. ``torque`` moves the left hemisphere back and the right
    forward; ``planum`` is how much further back the left Sylvian fissure runs.
    """

    scale: tuple[float, float, float]
    csf: float
    fissure: float
    cortex: float
    ventricle: float
    cavum: float
    sylvian: float
    cerebellum: float
    callosum: float
    primary_depth: float
    secondary_depth: float
    tertiary_depth: float
    fold_shift: float
    torque: float = 1.3
    planum: float = 5.0
    occipital_horn: float = 2.5


def anatomy(age: float, rng: np.random.Generator | None = None, jitter: float = 0.0) -> Anatomy:
    """The brain at ``age`` weeks; with ``rng``, one that differs from the average by ``jitter`` (1: natural variation)."""
    sampled = np.zeros(12) if rng is None or jitter == 0 else jitter * np.clip(rng.standard_normal(12), -2, 2)
    varied = sampled.tolist()  # plain floats keep float32 fields float32
    grown = 1 / (1 + np.exp(-(age - 25.5) / 6.5))
    sd = _SD_LOW + _SD_RANGE * grown
    scale = sd / _SD_SOLID * (1 + 0.03 * varied[0]) * (1 + 0.015 * sampled[1:4])
    mean = float(np.prod(scale)) ** (1 / 3)

    def ramp(start: float, end: float) -> float:
        """0 before ``start`` weeks, 1 after ``end``, smooth between."""
        t = min(max((age - start) / (end - start), 0.0), 1.0)
        return t * t * (3 - 2 * t)

    return Anatomy(
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        csf=(3.6 - 2.6 * ramp(20, 42)) * (1 + 0.15 * varied[4]),
        fissure=1.1 - 0.5 * ramp(21, 38),
        cortex=(1.7 + 0.35 * ramp(21, 36)) / mean,
        ventricle=(1.5 - 0.5 * ramp(21, 38)) * (1 + 0.1 * varied[5]),
        cavum=(1.05 - 0.6 * ramp(26, 42)) * (1 + 0.15 * varied[6]),
        sylvian=8.5 - 7.3 * ramp(21, 37),
        cerebellum=(0.84 + 0.32 * ramp(21, 40)) * (1 + 0.03 * varied[7]),
        callosum=1.0 + 0.15 * ramp(21, 30),
        primary_depth=9.0 * ramp(21, 34) * (1 + 0.1 * varied[8]),
        secondary_depth=7.5 * ramp(23, 38) * (1 + 0.1 * varied[9]),
        tertiary_depth=5.0 * ramp(28, 41),
        fold_shift=0.37 + 0.12 * varied[10],
        torque=1.3 * (1 + 0.2 * varied[11]),
    )


def atlas_points(x: Field, y: Field, z: Field, a: Anatomy) -> tuple[Points, Points]:
    """World axes (mm, 1D) → points of the 30-week solids, and the same unwarped axes.

    The warp is the torque of the two halves: left back, right forward, each wider where it protrudes, and the midline
    bent to the right at the back. It acts along x and y, so that its arrays are flat along z.
    """
    u, v, w = (
        np.asarray(axis / s + c, dtype=np.float32) for axis, s, c in zip((x, y, z), a.scale, _CENTRE_SOLID, strict=True)
    )
    u, v, w = u[:, None, None], v[None, :, None], w[None, None, :]
    side = np.tanh(u / 8)
    xw = (u + a.torque * (v / 45) ** 3) * (1 - 0.025 * a.torque * side * v / 45)
    yw = v - a.torque * side
    return Points(xw, yw, w), Points(u, v, w)


def extent(a: Anatomy) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Corners (mm, world) of a box that contains the whole brain."""
    low, high = (-41.0, -51.0, -46.0), (41.0, 51.0, 37.0)
    x, y, z = a.scale
    c = _CENTRE_SOLID
    return (
        ((low[0] - c[0]) * x, (low[1] - c[1]) * y, (low[2] - c[2]) * z),
        ((high[0] - c[0]) * x, (high[1] - c[1]) * y, (high[2] - c[2]) * z),
    )


def intracranial(p: Points) -> Field:
    """The brain with its extra-axial CSF: the mask, negative inside. The same at every age except for scale."""
    q = Points(np.abs(p.x), p.y, p.z)
    vault = ellipsoid(q, (0.0, 1.0, 4.0), (38.0, 46.5, 30.5))
    vault = -smooth_union(-vault, -(-16.0 - p.z - 0.1 * (p.y - 25)), 5.0)
    temporal = tube(q, [((24.0, 17.0, -17.0), 12.0), ((24.5, -6.0, -14.0), 14.5), ((15.0, -30.0, -3.0), 14.5)])
    below = tube(q, [((9.5, -19.0, -20.0), 15.0), ((0.0, -12.0, -24.0), 15.0), ((0.0, -10.0, -37.0), 6.0)])
    sella = ellipsoid(q, (0.0, 6.0, -12.0), (24.0, 18.0, 9.0))
    return smooth_union(smooth_union(smooth_union(vault, sella, 4.0), temporal, 5.0), below, 5.0)


def hemisphere(q: Points, left: Field, a: Anatomy) -> Field:
    """One unfolded hemisphere, with ``q.x`` ≥ 0 lateral; ``left`` is 1 on the left and 0 on the right."""
    out = ellipsoid(q, (4.0, 1.5, 4.5), (31.0, 42.0, 26.5))
    floor = -12.5 - 0.1 * (q.y - 25)
    out = -smooth_union(-out, -(floor - q.z), 4.0)
    out = smooth_union(out, ellipsoid(q, (12.5, -24.0, 0.0), (16.5, 18.0, 16.0)), 4.0)
    temporal = tube(q, [((24.5, 16.5, -17.5), 8.3), ((25.0, -4.0, -14.0), 11.0), ((20.0, -22.0, -6.0), 12.0)])
    inner = tube(q, [((17.0, 3.0, -15.0), 5.0), ((13.0, -20.0, -7.0), 6.0)])
    out = smooth_union(out, smooth_union(temporal, inner, 3.0), 3.0)
    # the Sylvian fissure: a wide pit when young, a slit between the opercula later
    back = -7.0 - a.planum * left
    up = 5.0 + 3.0 * (1 - left)
    pit = capsule(q, (33.0, 18.0, -8.5), (32.5, back, up), a.sylvian, 0.75 * a.sylvian)
    slit = tube(
        q,
        [((23.5, 15.0, -7.5), 1.0), ((25.5, 3.0, -1.0), 1.0), ((29.0, back, up), 0.8)],
    )
    blade = tube(q, [((38.0, 18.0, -9.0), 1.0), ((39.0, 3.0, -2.0), 1.0), ((38.0, back, up + 1.0), 0.8)])
    between = np.maximum(_ribbon(slit, blade, q, back, up), 22.0 - q.x)
    out = smooth_cut(out, np.minimum(pit, between), 2.0)
    # the two halves part at the midline, further apart towards the vertex
    gap = a.fissure * (1 + 0.035 * np.maximum(q.z - 8, 0) + 0.0005 * q.y * q.y)
    out = np.maximum(out, gap - q.x)
    return out + (a.csf - 2.6)


def _ribbon(inner: Field, outer: Field, q: Points, back: Field, up: Field) -> Field:
    """The plane of the Sylvian slit from the insula (``inner``) to the surface (``outer``)."""
    slope = (up + 8.5) / (back - 18.0)
    height = q.z + 8.5 - slope * (q.y - 18.0) + 0.1 * (q.x - 30.0)
    span = np.maximum(q.y - 19.0, back - q.y)
    return np.minimum(np.maximum(np.abs(height) - 0.6, span), np.minimum(inner, outer))


def sulci(axes: Points, q: Points, left: Field, depth: Field, a: Anatomy) -> Field:
    """The folded surface: ``depth`` (the unfolded hemisphere) with sulci cut into it to this age's depths."""
    moved = Points(np.abs(axes.x) + 1.5 * left, axes.y, axes.z)
    out = depth
    named: list[tuple[Place, Place, float, float]] = [
        ((0.35, 1.0, -0.45), (24.0, -1.0, 22.0), 23.0, 1.0),  # central
        ((0.0, 1.0, 0.75), (3.0, -25.0, 10.0), 16.0, 1.0),  # parieto-occipital
        ((0.0, 0.15, 1.0), (3.0, -32.0, -3.0), 15.0, 1.0),  # calcarine
        ((0.3, 0.45, 1.0), (36.0, -6.0, -11.0), 20.0, 0.9),  # superior temporal
    ]
    for normal, centre, radius, part in named:
        apart, reach = sheet(q, normal, centre, radius)
        out = np.maximum(out, _sulcus(apart, depth, part * a.primary_depth * reach))
    for wavelength, n, deep in ((27.0, 9, a.secondary_depth), (15.0, 13, a.tertiary_depth)):
        if deep > 0.3:
            apart, reach = stripes(moved, wavelength, n, a.fold_shift)
            out = np.maximum(out, _sulcus(apart, depth, deep * reach))
    return out


def _sulcus(apart: Field, depth: Field, deep: Field) -> Field:
    """Minus the distance to a cleft at ``apart`` = 0 with a depth of ``deep`` mm below the surface and a round floor."""
    return smooth_union(0.3 - apart, depth + deep, 1.5)


def ventricles(q: Points, left: Field, a: Anatomy) -> Field:
    """Lateral ventricles with frontal, occipital and temporal horns; the third; the cavum; the aqueduct and fourth."""
    g = a.ventricle
    back = -29.0 - a.occipital_horn * left
    body = tube(
        q,
        [
            ((6.0, 24.0, 0.5), 1.6 * g),
            ((5.0, 15.0, 7.0), 2.3 * g),
            ((6.5, 0.0, 11.0), 2.2 * g),
            ((13.5, -13.5, 3.5), 3.5 * g),
            ((17.0, -21.0, -3.0), 3.3 * g),
            ((15.5, back, -7.0), (1.8 + 0.4 * left) * g),
        ],
    )
    temporal = tube(q, [((16.5, -15.0, -3.0), 2.5 * g), ((21.5, -5.0, -13.0), 1.5 * g), ((20.5, 5.0, -17.0), 1.2 * g)])
    third = ellipsoid(q, (0.0, -1.0, -3.0), (1.1, 9.0, 8.0))
    cavum = ellipsoid(q, (0.0, 14.0, 4.5), (3.0 * a.cavum, 8.0 * a.cavum, 4.5 * a.cavum))
    fourth = tube(q, [((0.0, -11.0, -11.0), 0.7), ((0.0, -13.5, -20.0), 2.0), ((0.0, -16.0, -28.0), 1.2)])
    return np.minimum(np.minimum(smooth_union(body, temporal, 2.0), third), np.minimum(cavum, fourth))


def deep_grey(q: Points) -> Field:
    """Thalamus and basal ganglia."""
    thalamus = ellipsoid(q, (7.0, -4.0, 0.0), (6.5, 10.0, 8.0))
    striatum = ellipsoid(q, (14.0, 6.5, -1.0), (6.5, 12.0, 8.0))
    caudate = tube(q, [((8.5, 20.0, 2.0), 3.6), ((10.0, 8.0, 9.0), 2.4), ((12.5, -6.0, 10.0), 1.5)])
    return smooth_union(smooth_union(thalamus, striatum, 2.0), caudate, 1.5)


def callosum(q: Points, a: Anatomy) -> Field:
    """Corpus callosum: an arch over the midline, thin in young brains."""
    t = a.callosum
    arch: list[tuple[float, float, float]] = [
        (17.5, -3.5, 0.9),
        (23.5, 2.0, 1.6),
        (20.5, 9.5, 1.3),
        (8.0, 14.0, 1.2),
        (-6.0, 13.5, 1.2),
        (-14.0, 8.0, 1.7),
    ]
    return tube(Points(np.maximum(q.x - 6.0, 0), q.y, q.z), [((0.0, y, z), r * t) for y, z, r in arch])


def brainstem(q: Points) -> Field:
    """Midbrain with its peduncles, pons bulging forward, medulla."""
    peduncle = capsule(q, (4.5, -4.0, -9.0), (4.0, -3.0, -16.0), 3.0, 3.0)
    midbrain = smooth_union(ellipsoid(q, (0.0, -8.5, -10.0), (7.5, 5.5, 6.5)), peduncle, 2.0)
    pons = ellipsoid(q, (0.0, -5.0, -20.0), (8.5, 6.5, 6.5))
    medulla = capsule(q, (0.0, -7.5, -24.0), (0.0, -11.5, -40.0), 5.0, 3.6)
    return smooth_union(smooth_union(midbrain, pons, 2.0), medulla, 2.5)


def cerebellum(q: Points, a: Anatomy) -> Field:
    """Two lobes and the vermis, notched between them behind."""
    g = a.cerebellum
    lobe = ellipsoid(q, (10.5, -20.5, -21.5), (12.0 * g, 9.5 * g, 8.0 * g))
    vermis = ellipsoid(q, (0.0, -18.5, -19.0), (6.0 * g, 7.5 * g, 9.5 * g))
    return smooth_union(lobe, vermis, 1.5)
