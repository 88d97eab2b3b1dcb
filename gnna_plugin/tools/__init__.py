"""Everything behind the command line: `python -m gnna_plugin` and the console script `gnna`.

cli.py owns the list of subcommands; each has a module or a package here. The runtime, which is what a training script
loads, imports nothing from this package.
"""
