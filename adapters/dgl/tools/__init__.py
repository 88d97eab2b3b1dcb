"""DGL models and peers for the command line. enable() imports none of them."""
