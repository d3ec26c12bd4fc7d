"""The tasks: each is one record, `TASK` in the module of its name; `table` has them all. This list is cheap: it loads
nothing.
"""

NAMES = ("classification", "segmentation", "detection", "pose")
"""Of the tasks, and of the modules of this folder that hold them, in the order in which they are told to users."""
