"""The super network: a seed whose every member of a space is a slice."""
