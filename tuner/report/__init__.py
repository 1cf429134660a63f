"""What a user sees of a job: tables, plots, the HTML report, how sure the winner is, the live display.

Imports tracking, trials and what is below them.
"""
