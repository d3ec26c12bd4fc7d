"""Data sets: reading the formats people have, finding what is broken in them, and making training and evaluation
samples.
"""
