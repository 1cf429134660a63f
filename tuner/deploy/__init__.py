"""Use of trained models: finds the checkpoint of a model that the user names.

Imports tracking, train and what is below them.
"""
