"""A folder that `gnna run` puts on PYTHONPATH, for its sitecustomize.py."""
