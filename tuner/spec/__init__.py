"""The specification of an experiment: the sections of the YAML file, the loader, and checks before a job starts.

Every mistake is reported with file, line, key and what is allowed. Imports search, train and what is below them.
"""
