"""How many samples a network takes at once: where they lie in every tensor, and what another number asks of the
graph.
"""
