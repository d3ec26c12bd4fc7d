"""The Python API tells a caller what to pass, where the command line names an option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from passes.errors import RefusedModel, UserError

WORDS: Mapping[str, str] = {"--force": "force=True", "--no-verify": "verify=False"}
"""Option → the keyword that stands for it in the functions that have one."""


@contextmanager
def called() -> Iterator[None]:
    """Within it, errors speak of keywords."""
    try:
        yield
    except (UserError, RefusedModel) as error:
        text = str(error)
        for option, keyword in WORDS.items():
            text = text.replace(option, keyword)
        raise type(error)(text) from error
