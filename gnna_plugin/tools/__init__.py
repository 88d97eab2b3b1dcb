"""Everything behind the command line: `python -m gnna_plugin` and the console script `gnna`.

cli.py owns the list of subcommands. Each subcommand is a module or a package here. The runtime that a training script
loads imports nothing from this package.
"""
