"""BIDS datasets: input images, their ages and masks, and the names and files of outputs."""

from __future__ import annotations

from .ages import Age, AgeReader, parse_age
from .description import record_hashes, write_bidsignore, write_dataset_description
from .failures import Failures
from .filters import read_filter_file
from .image import InputImage
from .masks import parse_derivative
from .names import OutputNames, collisions, duplicates, subject_page
from .results import current, is_turned_by, remove_superseded, results_in
from .sidecars import HASH_KEY, Metadata, is_done, parameters_hash, read_json, write_json
from .walk import Survey, find_images, list_subjects, survey_images

__all__ = [
    "HASH_KEY",
    "Age",
    "AgeReader",
    "Failures",
    "InputImage",
    "Metadata",
    "OutputNames",
    "Survey",
    "collisions",
    "current",
    "duplicates",
    "find_images",
    "is_done",
    "is_turned_by",
    "list_subjects",
    "parameters_hash",
    "parse_age",
    "parse_derivative",
    "read_filter_file",
    "read_json",
    "record_hashes",
    "remove_superseded",
    "results_in",
    "subject_page",
    "survey_images",
    "write_bidsignore",
    "write_dataset_description",
    "write_json",
]
