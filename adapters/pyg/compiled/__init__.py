"""Layers inside code compiled by torch.compile.

Lazy messages are Python objects that dynamo cannot follow. While dynamo traces a layer, the hooks record its gathers,
reductions and softmaxes as the plug-in's ops on real tensors (trace.py). The finished graph is rewritten before its
backend compiles it (graph.py): fuse.py turns a gather, its weights and the reduction into one spmm, and early.py moves
what depends on the edges alone in front of the graph, where it is cached as in eager mode.
"""
