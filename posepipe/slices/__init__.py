"""Slices: frames and mirror-ambiguous twin poses, slice-to-volume registration, the pose of a stack, tracking, and simulated motion."""
