"""Measured latency as a cost: every candidate of every block timed in ONNX Runtime, and a table that adds up as
multiply-adds do.
"""
