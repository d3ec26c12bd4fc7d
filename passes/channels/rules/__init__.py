"""How each operator's axes relate: one row per operator (`table.RULES`).

A rule gets the node and the flow, and returns the label of its output (or a tuple, one per output): which axis carries
channels, and which channels. Weights it meets are recorded as sites, sizes as sizes. `None` means: no axis of the
output follows a weight.
"""
