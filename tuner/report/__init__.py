"""What tuner shows of a job: tables, plots, the HTML report, the significance of the winner, the live display.

Imports tracking, trials and what is below them.
"""
