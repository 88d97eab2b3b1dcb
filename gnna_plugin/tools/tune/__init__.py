"""`gnna tune`: measures what the decider would otherwise assume, on the user's graph and device, and keeps the answer.

search.py looks for the best launch among candidates, launches.py measures them on a GPU, crossover.py finds the CPU's
min_work, command.py is the command line; gnna_plugin.tuned keeps the answers and puts them in force.
"""
