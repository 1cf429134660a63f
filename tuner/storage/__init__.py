"""Files: where a job's files lie, on whatever file system.

Owns file systems, URIs, temporary folders, YAML, and what a full disk looks like. Imports the ground alone.
"""
