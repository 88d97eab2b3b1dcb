"""Timings against every installed peer: `gnna bench spmm|segment|sddmm|epoch|plan|host`, and the page made from them.

A peer is other code that computes the same. timing.py owns the clocks, rates.py the rates of the memory, and peers.py
the peers. kernels.py, epoch.py, plan.py and host.py measure rows, show.py shows and stores them, page.py writes
docs/benchmarks.md from stored rows, and command.py is the command line.
"""
