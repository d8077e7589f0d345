"""Poses: proposed, refined, judged and applied."""
