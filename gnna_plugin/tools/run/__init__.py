"""The subcommand `run`: a script with the plug-in on, without a change to the script."""
