"""Everything that imports MLflow: the client, queries, the registry, the UI, and in `record` what writes a job's runs.

Nothing is imported here: MLflow takes seconds. Imports trials and what is below it.
"""
