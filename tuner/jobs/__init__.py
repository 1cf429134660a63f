"""One job: preflight, lock, driver, finish, result; sync, submit and the training of one trial without Ray.

Imports report, ray_backend and what is below them.
"""
