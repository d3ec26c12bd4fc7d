"""The tasks as one table, and what needs all of them: reading what a model says it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fnatool.files.interface import TASK_KEY
from fnatool.tasks import NAMES
from fnatool.tasks.description import LONGEST, Description
from fnatool.tasks.task import Task
from passes.errors import UserError

if TYPE_CHECKING:
    from fnatool.tasks.parts import Batch, Outputs, Parts

T = TypeVar("T")

TASKS: Mapping[str, Task] = {name: import_module(f"fnatool.tasks.{name}").TASK for name in NAMES}

_UNION: Any = reduce(or_, (task.description for task in TASKS.values()))
_ADAPTER: TypeAdapter[Description] = TypeAdapter(Annotated[_UNION, Field(discriminator="task")])


def parse_description(text: str, wrong: str = f"'{TASK_KEY}' of this model does not describe a task") -> Description:
    """The description in the metadata's text. Raises UserError for anything that is not one, beginning with what is
    `wrong` then.
    """
    if len(text) > LONGEST:
        raise UserError(
            f"'{TASK_KEY}' of this model has {len(text):,} characters; a description has at most {LONGEST:,}"
        )
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{wrong}: {f'{place}: ' if place else ''}{said}{more}") from error


def description_of(metadata: Mapping[str, str]) -> Description:
    """The description of a model with this metadata. Raises UserError where it has none."""
    if TASK_KEY not in metadata:
        missing = f"this model does not say what it is for (no '{TASK_KEY}' in its metadata)"
        raise UserError(f"{missing}; give it a head with 'fnatool head', or say it with 'fnatool task'")
    return parse_description(metadata[TASK_KEY])


def require_task(task: str) -> None:
    """Raises UserError for an unknown task."""
    if task not in TASKS:
        raise UserError(f"'{task}' is no task; there are {', '.join(TASKS)}")


def evaluate(predictions: Sequence[object], truths: Sequence[object], description: Description) -> dict[str, float]:
    """The figures for predictions of images of which truths are known (see `Task.truth`), in the same order."""
    task = TASKS[description.task]
    return task.score([task.compare(p, t, description) for p, t in zip(predictions, truths, strict=True)], description)


def by_task(outputs: Mapping[str, T], description: Description) -> dict[str, T]:
    """The outputs of a model by the names that its task has for them; others keep their own."""
    names = {description.output(name): name for name in TASKS[description.task].outputs}
    return {names.get(name, name): value for name, value in outputs.items()}


def loss_of(outputs: Outputs, batch: Batch, description: Description) -> Parts:
    """What training a model of this description lowers, of its outputs by their own names."""
    return TASKS[description.task].loss(by_task(outputs, description), batch, description)
