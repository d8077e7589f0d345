"""Nipype interfaces, one for each stage: thin wrappers with files as inputs and outputs around the other packages."""
