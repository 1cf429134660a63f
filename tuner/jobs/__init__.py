"""One job: preflight, lock, driver, finish, result; sync, submit and the trial that runs without Ray.

Imports report, ray_backend and what is below them.
"""
