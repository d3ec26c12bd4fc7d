"""The command line: options, and one call for each command."""
