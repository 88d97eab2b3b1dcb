"""`gnna study`: repeats the evaluation of the GNNAdvisor paper (OSDI 2021), a subcommand per figure.

graphs.py owns the paper's graphs. training.py measures training steps (figures 9, 10, 11c and 12a), launches.py sweeps
launch parameters on a GPU (figures 11a and 11b), and spmm.py times a single aggregation. tables.py and plot.py show the
rows, and command.py is the command line.
"""
