"""`gnna verify`: compares the plug-in's ops with a float64 reference on the user's graph, with fresh random inputs.

reference.py computes the expected results with torch alone, cases.py runs the ops and owns the tolerances, and
command.py is the command line.
"""
