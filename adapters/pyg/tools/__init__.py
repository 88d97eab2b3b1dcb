"""PyG models to train, peers to time and data sets to load, for the command line; enable() imports none of them."""
