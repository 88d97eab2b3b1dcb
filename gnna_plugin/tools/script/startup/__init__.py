"""A folder that `gnna run` and `gnna compare SCRIPT` put on PYTHONPATH, for its sitecustomize.py."""
