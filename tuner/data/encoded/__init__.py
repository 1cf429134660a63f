"""Datasets whose images lie encoded in files. What they share is in `dataset`; a member says what its images are."""
