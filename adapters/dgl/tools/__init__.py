"""DGL models to train and peers to time, for the command line; enable() imports none of them."""
