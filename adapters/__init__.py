"""Adapters for graph frameworks: the only code that imports PyG or DGL. Installed as gnna_plugin.adapters."""
