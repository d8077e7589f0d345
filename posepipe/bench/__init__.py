"""Measurements anyone can rerun: perturbed images with known truth, and the tables made from them."""
