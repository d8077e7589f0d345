"""Atlas manifests as data.

``NAME.toml``: what is known of an atlas; ``NAME_sources.tsv``: files to download; ``NAME_terms.txt``: licence or terms.
``canonical.toml`` holds each cohort's fixed rotation to the canonical frame. Read by :mod:`posepipe.atlas`.
"""
