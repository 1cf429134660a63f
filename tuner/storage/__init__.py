"""Access to the files of a job, local or in an object store.

Owns file systems, URIs, temporary folders, file locks, YAML and the detection of a full disk. Imports the ground alone.
"""
