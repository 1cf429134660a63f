"""The cluster that a job runs on: connecting to it, what it has, the check of its nodes, what is uploaded to it.

Imports the internals of Ray beside it, and nothing of the control loop.
"""
