"""The state of a job: its trials, their callbacks, the leaderboard, the journal, resume, stopping, retention.

The journal is the one truth of a job. Imports spec and what is below it; knows neither Ray nor MLflow.
"""
