"""The record of a job in MLflow: a projection of its journal, written by a process of its own."""
