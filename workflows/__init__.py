"""Nipype workflows: one image, one session, one run."""
