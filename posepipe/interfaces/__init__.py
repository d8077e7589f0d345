"""Nipype interfaces, thin, one for each stage: files in, files out; the work is done in the packages below."""
