"""The table of one GPU: what trials reach on it, against the textbook loop and the eager loop. See `__main__`.

`rows` holds what is measured, a module a row or a few of a kind; `large_model` what one
of them needs; the other modules hold what rows share.
"""
