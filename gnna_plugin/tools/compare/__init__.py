"""Side-by-side comparison: the same training with and without the plug-in, each in a process of its own.

spec.py says what is compared, data.py brings the graph to the processes, worker.py measures one arm with the meters of
measure.py, runner.py starts the arms and computes the rows, report.py shows them, command.py is the command line.
"""
