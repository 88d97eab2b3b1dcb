"""Small random programs, each run plain and with the plug-in on. The runs must not differ in anything a user can see.

script.py defines a program, strategies.py draws one, interpreter.py runs it and compare.py compares two runs. The names
that a program may use are in tools.py, pyg_names.py and dgl_names.py. The statements are in messages.py, pyg_steps.py
and dgl_steps.py, by the kind of behaviour that they exercise.
"""
