"""Timings beside every installed peer: `gnna bench spmm|segment|sddmm|epoch|plan|host`, and the page made from them.

timing.py owns the clocks, rates.py what the machine's memory allows, peers.py who else computes the same; a module per
measurement (kernels.py, epoch.py, plan.py, host.py) turns them into rows, show.py shows and stores the rows, page.py
writes docs/benchmarks.md from what was stored, command.py is the command line. Nothing here is imported by the runtime.
"""
