"""Random little programs, run plain and with the plug-in on, that must not differ in anything a user can see.

script.py holds a program, strategies.py draws one, interpreter.py runs it, compare.py compares two runs. The names
that a program may use are in tools.py, pyg_names.py and dgl_names.py; the statements in messages.py, pyg_steps.py and
dgl_steps.py, each under the kind of behaviour that it exercises.
"""
