"""The study behind `python -m benchmarks.search_study`: tasks, rows of architectures, cells of both, and their
table.
"""
