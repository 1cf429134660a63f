"""An earlier run of a job: which jobs a storage has, and what a journal says of one.

Imports the trials, their events and the journal, and what is below them.
"""
