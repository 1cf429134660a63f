"""What leaves the house: a model that is named in whatever way, as the checkpoint that it is.

Imports tracking, train and what is below them.
"""
