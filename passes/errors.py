"""What can go wrong for the user of a pass. The shell turns these into messages and exit codes."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user asked (spec, option, path): a message saying what, where and what to do; exit code
    2.
    """


class Listed(UserError):
    """The same with a list: a line for each of what is in it, which may name anything. `lines` are all of the
    message.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class RefusedModel(Exception):
    """A model that cannot be handled without the risk of breaking it: the reason, naming node or tensor; exit code
    1.
    """
