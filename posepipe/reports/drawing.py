"""Line drawing of a head rotated by a pose, as inline SVG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..geometry import Rigid

Array = npt.NDArray[np.float64]

_SIZE, _SCALE = 260, 92.0  # pixels; pixels per unit of length, where the head is 1.6 units long
_RADII = np.array([0.62, 0.80, 0.64])  # of the head, along its right, anterior and superior axes
_TOWARDS = np.array([0.48, -0.72, 0.50])  # to the viewer: behind, above and to the right, so that right is on the right
_NOSE = np.array([[-0.15, 0.72, -0.20], [0.0, 1.02, -0.24], [0.15, 0.72, -0.20], [0.0, 0.76, 0.14]])
_AXES = (("R", "right", "#c04a00"), ("A", "anterior", "#00785a"), ("S", "superior", "#0067b0"))
_OPPOSITE = {"right": "left", "anterior": "posterior", "superior": "inferior"}


def head_turn(pose: Rigid) -> str:
    """Inline SVG of the head's orientation in the image: the atlas's R, A and S axes rotated by ``pose``.

    Grey dashed axes are the image's world axes (RAS), seen from behind, above and to the right. The drawing has a text alternative for
    accessibility.

    >>> "anterior points to the image&#39;s superior" in head_turn(Rigid.from_rotvec([np.pi / 2, 0, 0]))
    True
    """
    turn, camera = pose.rotation, _camera()
    text = _escape(f"Head turned by {pose.angle_degrees:.0f} degrees. " + " ".join(f"{p}." for p in axis_phrases(pose)))
    shapes = [_nose(turn, camera), *(_axis(turn[:, i], i, camera) for i in range(3))]
    behind, before = [s for s, near in shapes if not near], [s for s, near in shapes if near]
    letters = [_letter(turn[:, i], i, camera) for i in range(3)]  # last, so that the skull hides none
    parts = [_world(camera), *behind, _skull(turn, camera), *before, *letters]
    return (
        f'<svg class="head" role="img" viewBox="0 0 {_SIZE} {_SIZE}" width="{_SIZE}" height="{_SIZE}" '
        f'aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'
    )


def axis_phrases(pose: Rigid) -> list[str]:
    """Where each axis of the head points in the image, in words.

    >>> axis_phrases(Rigid.identity())[0]
    "The head's right points to the image's right (0° off)"
    """
    phrases = []
    for number, (_, name, _) in enumerate(_AXES):
        arrow = pose.rotation[:, number]
        nearest = int(np.abs(arrow).argmax())
        towards = _AXES[nearest][1] if arrow[nearest] > 0 else _OPPOSITE[_AXES[nearest][1]]
        off = np.degrees(np.arccos(min(1.0, abs(float(arrow[nearest])))))
        phrases.append(f"The head's {name} points to the image's {towards} ({off:.0f}° off)")
    return phrases


def _camera() -> Array:
    """Rows: the viewer's right and up, and the direction to the viewer, in RAS."""
    towards = _TOWARDS / np.linalg.norm(_TOWARDS)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(towards, right), towards])


def _screen(points: npt.ArrayLike, camera: Array) -> Array:
    """Pixels (n, 2) of ``points`` (n, 3)."""
    seen = np.asarray(points, dtype=float) @ camera[:2].T
    return _SIZE / 2 + _SCALE * seen * [1, -1]


def _path(points: Array, camera: Array, close: bool = False) -> str:
    pixels = _screen(points, camera)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels) + ("Z" if close else "")


def _world(camera: Array) -> str:
    parts = []
    for number, (letter, _, _) in enumerate(_AXES):
        (x0, y0), (x1, y1), (x2, y2) = _screen(np.outer([-1.0, 1.18, 1.32], np.eye(3)[number]), camera)
        parts.append(
            f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#8a97a5" stroke-dasharray="3 3"/>'
            f'<text x="{x2:.1f}" y="{y2 + 4:.1f}" font-size="12" text-anchor="middle" fill="#66727f">{letter}</text>'
        )
    return "".join(parts)


def _axis(arrow: Array, number: int, camera: Array) -> tuple[str, bool]:
    """One axis of the head, from the skin outwards, and whether it comes towards the viewer."""
    color = _AXES[number][2]
    start, tip = _screen(np.outer([_RADII[number], 1.14], arrow), camera)
    along = tip - start
    length = float(np.linalg.norm(along))
    near = bool(camera[2] @ arrow > 0)
    if length < 1:  # straight at the viewer, or straight away
        body = f'<circle cx="{tip[0]:.1f}" cy="{tip[1]:.1f}" r="5" fill="{color}"/>'
    else:
        along /= length
        across = np.array([-along[1], along[0]])
        head = min(9.0, length)
        a, b = tip - head * along + 5 * across, tip - head * along - 5 * across
        body = (
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{tip[0] - 4 * along[0]:.1f}" '
            f'y2="{tip[1] - 4 * along[1]:.1f}" stroke="{color}" stroke-width="3.5"/>'
            f'<path d="M{tip[0]:.1f} {tip[1]:.1f}L{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}Z" fill="{color}"/>'
        )
    return body, near


def _letter(arrow: Array, number: int, camera: Array) -> str:
    letter, _, color = _AXES[number]
    x, y = _screen(1.29 * arrow, camera)
    return (
        f'<text x="{x:.1f}" y="{y + 5:.1f}" font-size="15" font-weight="700" text-anchor="middle" '
        f'fill="{color}" stroke="#fff" stroke-width="3" paint-order="stroke">{letter}</text>'
    )


def _nose(turn: Array, camera: Array) -> tuple[str, bool]:
    points = _NOSE @ turn.T
    shape = f'<path d="{_path(points, camera, close=True)}" fill="#dfe5eb" stroke="#46525f" stroke-linejoin="round"/>'
    return shape, bool(camera[2] @ turn[:, 1] > 0)


def _skull(turn: Array, camera: Array) -> str:
    """Outline of the turned ellipsoid, with its midline and its equator: solid where they face the viewer."""
    spread = camera[:2] @ (turn * _RADII**2) @ turn.T @ camera[:2].T
    squares, ways = np.linalg.eigh(spread)
    angle = np.degrees(np.arctan2(-ways[1, 0], ways[0, 0]))  # down is positive on the screen
    rx, ry = _SCALE * np.sqrt(squares)
    parts = [
        f'<ellipse cx="{_SIZE / 2}" cy="{_SIZE / 2}" rx="{rx:.1f}" ry="{ry:.1f}" '
        f'transform="rotate({angle:.1f} {_SIZE / 2} {_SIZE / 2})" fill="#eef2f6" fill-opacity="0.78" '
        f'stroke="#46525f" stroke-width="1.5"/>'
    ]
    around = np.linspace(0, 2 * np.pi, 97)
    zero = np.zeros_like(around)
    for circle, width in (
        (np.stack([zero, np.cos(around), np.sin(around)], axis=1), 1.6),
        (np.stack([np.cos(around), np.sin(around), zero], axis=1), 0.9),
    ):
        points = (circle * _RADII) @ turn.T
        facing = (circle / _RADII) @ turn.T @ camera[2] > 0
        for near in (False, True):
            style = f'stroke="#46525f" stroke-width="{width}"' if near else 'stroke="#b4bec8" stroke-width="0.8"'
            pieces = "".join(_path(points[i : i + 2], camera) for i in range(96) if facing[i] == near)
            if pieces:
                parts.append(f'<path d="{pieces}" fill="none" {style}/>')
    return "".join(parts)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("'", "&#39;")
