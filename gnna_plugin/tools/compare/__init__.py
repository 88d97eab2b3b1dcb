"""Compares the same training with and without the plug-in. Each way to train is called an arm and has its own process.

spec.py defines the comparison, data.py passes the graph to the processes, worker.py measures one arm with the meters of
measure.py, runner.py starts the arms and computes rows, report.py formats them, and command.py is the command line.
"""
