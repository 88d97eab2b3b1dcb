"""`python -m gnna_plugin`: hands over to the command line in gnna_plugin.cli."""

import sys

from gnna_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
