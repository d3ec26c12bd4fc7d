"""Measurements over many real topologies: the zoo of exported networks, sweeps and comparisons."""
