"""PyG models, peers and data sets for the command line. enable() imports none of them."""
