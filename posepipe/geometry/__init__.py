"""Rotations and rigid maps: SO(3) in numpy and torch, sampling, ITK transform files."""

from __future__ import annotations

from .itk import read_itk, write_itk
from .rigid import Rigid, mean_pose
from .sampling import arvo, axis_rotations, grid_radius, random_rotations, rotations_in_bin, super_fibonacci
from .so3 import exp, geodesic_distance, log

__all__ = [
    "Rigid",
    "arvo",
    "axis_rotations",
    "exp",
    "geodesic_distance",
    "grid_radius",
    "log",
    "mean_pose",
    "random_rotations",
    "read_itk",
    "rotations_in_bin",
    "super_fibonacci",
    "write_itk",
]
