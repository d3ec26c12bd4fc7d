"""Search: which member of a Space is best for a task within a budget."""
