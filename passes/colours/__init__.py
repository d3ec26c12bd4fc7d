"""How many channels the image has: where they go before the first layer, and what another number asks of the graph."""
