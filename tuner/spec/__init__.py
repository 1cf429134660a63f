"""One YAML file as a specification: its sections, the loader, checks before anything starts.

Every mistake is reported with file, line, key and what is allowed. Imports search, train and what is below them.
"""
