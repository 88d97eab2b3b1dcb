"""`python -m gnna_plugin`: runs the command line in gnna_plugin.tools.cli."""

import sys

from gnna_plugin.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
