"""Slices: frames and twins, slice-to-volume registration, the pose of a stack from its slices, and simulated motion."""
