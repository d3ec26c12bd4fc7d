"""A network that is to do what another one does: where the two are compared, how far apart they are, and how one learns
from the other.
"""
