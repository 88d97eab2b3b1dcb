"""`gnna tune`: measures launches and min_work on the user's graph and device, and stores the results.

search.py searches for the best launch, launches.py times candidates on a GPU, crossover.py measures min_work, and
command.py is the command line. gnna_plugin.tuned stores the results and applies them.
"""
