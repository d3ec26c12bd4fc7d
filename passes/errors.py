"""What can go wrong for the user of a pass. The shell turns these into messages and exit codes."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user asked (spec, option, path): a message saying what, where and what to do; exit code 2."""


class RefusedModel(Exception):
    """A model that cannot be handled without the risk of breaking it: the reason, naming node or tensor; exit code 1."""
