"""Compiled kernels and, beside each, the plain numpy reference that defines it.

The modules here know arrays only; records of the other packages never cross this border. `errors` is the exception that all packages share.
"""
