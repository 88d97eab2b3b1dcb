"""Users' own scripts: `gnna run` and `gnna compare SCRIPT` start them in processes of their own, unchanged.

program.py is the command line of such a process, startup/ turns the plug-in on in it, summaries.py prints at its end,
recorder.py measures it, arms.py starts it with and without the plug-in, and show.py and page.py present what was
measured.
"""
