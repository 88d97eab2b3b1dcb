"""The adapters: the only code that knows a framework. Installed as gnna_plugin.adapters."""
