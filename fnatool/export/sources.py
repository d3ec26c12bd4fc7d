"""Torch models by name: torchvision's, timm's, or one that a function in a file of the user's returns; and a checkpoint
into them.
"""

from __future__ import annotations

import difflib
import importlib.util
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from passes.errors import UserError

SEED = 0  # of random weights, so that the same command gives the same file
CHANNELS, SIDE = 3, 224  # where the model does not say what its input is

# where a state_dict is looked for first
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
DEPTH = 3  # of dictionaries in dictionaries
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # of DataParallel, torch.compile and trainers
PROBED = 8  # names of the module that tell the prefixes
UNIMPORTANT = "num_batches_tracked"  # counts training steps; no value depends on it in eval mode

# What code that we do not know may raise; MemoryError and Ctrl-C are not among it.
RAISED = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, SystemExit, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A torch module in eval mode, where it comes from, and what it says of its input.

    size is [channels, height, width]; an input is (pixel − mean) / scale with pixels from 0 to 255, both empty where it
    does not say.
    """

    module: torch.nn.Module
    name: str
    weights: str  # a tag, 'checkpoint NAME', 'random' or 'its own'; '' where nobody says
    size: tuple[int, ...] = (CHANNELS, SIDE, SIDE)
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def metadata(self) -> dict[str, object]:
        """Where the module comes from, for the model's metadata."""
        pixels = {"mean": list(self.mean), "scale": list(self.scale)} if self.mean else {}
        weights = {"weights": self.weights} if self.weights else {}
        return {"source": self.name, **weights, **pixels}


def of_module(module: torch.nn.Module) -> Source:
    """A module that is there already, of which nothing more is known."""
    return Source(module, type(module).__qualname__, "")


def load(
    name: str, *, weights: str | None = None, checkpoint: Path | None = None, classes: int | None = None
) -> Source:
    """The module that name says: `torchvision:resnet18`, `timm:mobilenetv2_100` or `path/to/file.py:function`.

    weights is a tag of the library's (or DEFAULT), which it downloads; checkpoint a file with a state_dict, read
    without running code in it; classes the size of the classifier. Raises UserError where there is no such model, no
    such weights, or the checkpoint does not fit.
    """
    if weights is not None and checkpoint is not None:
        raise UserError("give --weights or --checkpoint, not both: each says where all parameters come from")
    kind, _, rest = name.partition(":")
    torch.manual_seed(SEED)
    if kind in LIBRARIES and rest:
        source = LIBRARIES[kind](rest, weights, classes)
    elif ".py:" in name:
        source = _from_file(name, weights, classes)
    else:
        raise UserError(f"'{name}' is no source; give torchvision:NAME, timm:NAME or path/to/file.py:function")
    notes = source.notes
    if checkpoint is not None:
        notes += fill(source.module, checkpoint)
        source = replace(source, weights=f"checkpoint {checkpoint.name}")
    elif source.weights == "random":
        notes += (f"the weights are random (seed {SEED}); --weights or --checkpoint gives trained ones",)
    source.module.eval()
    return replace(source, notes=notes)


# --- torchvision and timm -----------------------------------------------------------------------


def _torchvision(name: str, weights: str | None, classes: int | None) -> Source:
    try:
        from torchvision import models
    except ImportError as error:
        raise UserError("torchvision is not installed; pip install torchvision") from error
    known: list[str] = models.list_models()
    if name not in known:
        raise UserError(f"torchvision has no model '{name}'{_closest(name, known)}")
    tags = models.get_model_weights(name)
    chosen = None if weights is None else _tag(tags, name, weights)
    options: dict[str, object] = {"weights": chosen}
    if chosen is None:
        options |= _without_download(name, models)
        options |= {} if classes is None else {"num_classes": classes}
    elif classes is not None and classes != len(chosen.meta.get("categories", ())):
        raise UserError(
            f"the weights {chosen.name} are for {len(chosen.meta.get('categories', ()))} classes, not "
            f"{classes}; leave --classes out, and "
            "give the exported seed another head"
        )
    with nullcontext() if chosen is None else _downloading(f"the weights {chosen.name} of torchvision:{name}"):
        module = models.get_model(name, **options)
    size, mean, scale = _prepared(chosen or next(iter(tags), None))
    return Source(
        module=module,
        name=f"torchvision:{name}",
        weights="random" if chosen is None else str(chosen.name),
        size=size,
        mean=mean,
        scale=scale,
    )


def _tag(tags: Any, name: str, wanted: str) -> Any:
    """The member of a torchvision weights enum that is called wanted; DEFAULT is the library's best."""
    names = {str(member.name): member for member in tags}
    if wanted == "DEFAULT" and names:
        return tags.DEFAULT
    if wanted not in names:
        raise UserError(
            f"torchvision:{name} has no weights '{wanted}'; there are: "
            f"{', '.join(('DEFAULT', *names)) if names else 'none'}"
        )
    return names[wanted]


def _without_download(name: str, models: ModuleType) -> dict[str, object]:
    """Options without which torchvision downloads a backbone, or adds classifiers that only training uses."""
    for family in (models.segmentation, models.detection):
        if name in models.list_models(module=family):
            return {"weights_backbone": None}
    return {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _prepared(weights: Any) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """The size, mean and scale of the weights' own preprocessing."""
    size = (CHANNELS, SIDE, SIDE)
    if weights is None:
        return size, (), ()
    transform = weights.transforms()
    sides = getattr(transform, "crop_size", None) or getattr(transform, "resize_size", None)
    if sides:
        size = (CHANNELS, int(sides[0]), int(sides[-1]))
    return (size, *_pixels(getattr(transform, "mean", None), getattr(transform, "std", None)))


def _pixels(
    mean: Sequence[float] | None, deviation: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and scale of pixels from 0 to 255, from those of pixels from 0 to 1."""
    if not mean or not deviation:
        return (), ()
    return tuple(round(255 * value, 4) for value in mean), tuple(round(255 * value, 4) for value in deviation)


def _timm(name: str, weights: str | None, classes: int | None) -> Source:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            "timm is not installed; pip install timm, or give torchvision:NAME or path/to/file.py:function"
        ) from error
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UserError(f"timm has no model '{base}'{_closest(base, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")] or [""] * timm.is_model_pretrained(
        base
    )
    chosen = tag if weights in (None, "DEFAULT") else weights
    if (chosen and chosen not in tags) or (weights is not None and not tags):
        there = ", ".join(("DEFAULT", *tags)) if tags else "none"
        raise UserError(f"timm:{base} has no weights '{chosen or weights}'; there are: {there}")
    full = f"{base}.{chosen}" if chosen else base
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    with nullcontext() if weights is None else _downloading(f"the weights {chosen or weights} of timm:{base}"):
        module = timm.create_model(full, pretrained=weights is not None, **options)
    config: Any = module.pretrained_cfg
    notes: tuple[str, ...] = ()
    if weights is not None and classes is not None and classes != config.get("num_classes"):
        notes = (f"the classifier has {classes} fresh random outputs: the weights are for {config.get('num_classes')}",)
    size = tuple(int(side) for side in config.get("input_size") or (CHANNELS, SIDE, SIDE))
    mean, scale = _pixels(config.get("mean"), config.get("std"))
    tag = "random" if weights is None else str(config.get("tag") or chosen or weights)
    return Source(module=module, name=f"timm:{full}", weights=tag, size=size, mean=mean, scale=scale, notes=notes)


LIBRARIES: Mapping[str, Callable[[str, str | None, int | None], Source]] = {"torchvision": _torchvision, "timm": _timm}


@contextmanager
def _downloading(what: str) -> Iterator[None]:
    """Within it, a failure is one of the download of what."""
    try:
        yield
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        fix = "download them where there is a network and give them with --checkpoint FILE"
        raise UserError(f"{what} could not be loaded: {first_line(error)}; {fix}") from error


def _closest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; it has {len(known)}, as {known[0]}"


# --- a file of the user's -----------------------------------------------------------------------


def _from_file(name: str, weights: str | None, classes: int | None) -> Source:
    """The module that the function returns. The file is run."""
    if weights is not None or classes is not None:
        raise UserError(
            f"--{'weights' if weights is not None else 'classes'} is for torchvision: and timm:; the function "
            "decides itself"
        )
    text, _, function = name.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise UserError(f"there is no file '{path}'")
    file = _run(path)
    make = getattr(file, function, None)
    if not callable(make):
        there = [key for key, value in vars(file).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"'{path}' has no function '{function}'{_closest(function, there) if there else ''}")
    module = _guarded(make, f"{function}()", path)
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{function}() in '{path}' returns {type(module).__name__}, not a torch.nn.Module")
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else None
    return Source(module, f"{path.name}:{function}", "its own", tuple(size) if size else (CHANNELS, SIDE, SIDE))


def _run(path: Path) -> ModuleType:
    """The file as a module; what lies beside it can be imported, as from a script."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    file = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, file)  # dataclasses and pickles of the file look themselves up there
    loader = spec.loader
    _guarded(lambda: loader.exec_module(file), "running it", path)
    return file


def _guarded(function: Callable[[], object], what: str, path: Path) -> object:
    """What the function returns. Raises UserError with the line of the user's file in which it failed."""
    try:
        return function()
    except RAISED as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"'{path}'" if line is None else f"'{path}', line {line}"
        raise UserError(f"{where}: {what} failed: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of a message that says something; many begin with a banner."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[:300] for line in lines if any(letter.isalpha() for letter in line)), type(error).__name__)


# --- checkpoints --------------------------------------------------------------------------------


def fill(module: torch.nn.Module, path: Path) -> tuple[str, ...]:
    """The module has the values of the state_dict in the file; what was unwrapped for that, as notes.

    Raises UserError where the file is none, holds code, or does not fit the module: which names are missing, left over
    or of other shapes.
    """
    wanted = module.state_dict()
    state, notes = _state_for(wanted, _read(path), path)
    _require_fit(state, wanted, path)
    module.load_state_dict({name: state.get(name, value) for name, value in wanted.items()})
    return notes


def _read(path: Path) -> object:
    if not path.is_file():
        raise UserError(f"there is no checkpoint '{path}'")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"'{path}' holds more than tensors ({_unsafe(error)}), and reading that would run code from it; "
            "save the state_dict alone: "
            "torch.save(model.state_dict(), …)"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is not a checkpoint of torch's, or not a whole one: {first_line(error)}") from error


def _unsafe(error: Exception) -> str:
    """What torch refused to read: its message names it after 'GLOBAL', and is a page of advice on how to read it all
    the same.
    """
    words = str(error).split()
    return words[words.index("GLOBAL") + 1].rstrip(".,") if "GLOBAL" in words[:-1] else "pickled objects"


def _read_safetensors(path: Path) -> object:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise UserError(
            "safetensors is not installed; pip install safetensors, or save with torch.save(model.state_dict(), …)"
        ) from error
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"'{path}' is not a safetensors file, or not a whole one: {first_line(error)}") from error


State = dict[str, torch.Tensor]


def _state_for(wanted: Mapping[str, torch.Tensor], found: object, path: Path) -> tuple[State, tuple[str, ...]]:
    """Of the dictionaries in a checkpoint the one that fits best, without a prefix of its names; and what was done, as
    notes.

    A checkpoint may hold more: a step, a loss, an optimiser's memory, the weights of a loss. Raises UserError where
    there is no state_dict, or where two fit alike and nothing says which is meant.
    """
    candidates = list(_states(found, ()))
    if not candidates:
        keys = f" with the keys {', '.join(str(key) for key in list(found)[:5])}" if isinstance(found, Mapping) else ""
        raise UserError(
            f"'{path}' holds no state_dict but {type(found).__name__}{keys}; save torch.save(model.state_dict(), …)"
        )
    rows = [(place, state, prefix) for place, state in candidates for prefix in _prefixes(state, wanted)]
    fits = [_fit(state, prefix, wanted) for _, state, prefix in rows]
    best = max(range(len(rows)), key=lambda k: (fits[k], 0 if fits[k] else len(rows[k][1])))  # the first of equals
    place, state, prefix = rows[best]
    same = [
        _said(place, prefix) for (place, _, prefix), fit in zip(rows, fits, strict=True) if fit and fit == fits[best]
    ]
    if len(same) > 1 and not (_is_known(prefix) and all(key in WRAPPINGS for key in place)):
        raise UserError(
            f"'{path}' holds the model {len(same)} times, as {' and '.join(same[:3])}; save the one that is meant"
        )
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    others = [name for name in state if not name.startswith(prefix)]
    notes = [f"took '{key}' out of '{path.name}'" for key in place]
    notes += [f"removed the prefix '{prefix}' from the names in '{path.name}'"] if prefix else []
    notes += [f"left out {len(others)} other tensor(s) of '{path.name}', as '{others[0]}'"] if others else []
    return inside, tuple(notes)


def _said(place: Sequence[str], prefix: str) -> str:
    return "'" + " → ".join([*place, f"{prefix}*"]) + "'"


def _states(found: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    """Every dictionary with tensors by name in the checkpoint, and the keys on the way there, the likeliest first."""
    if not isinstance(found, Mapping) or len(place) > DEPTH:
        return
    state = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if state:
        yield place, state
    inner = [key for key in WRAPPINGS if key in found] + [
        key for key in found if isinstance(key, str) and key not in WRAPPINGS
    ]
    for key in inner:
        yield from _states(found[key], (*place, key))


def _prefixes(state: State, wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """What may stand before the module's own names in the state: nothing, then what wrappers are known to write, then
    anything else.
    """
    firsts = [name for name in wanted if not name.endswith(UNIMPORTANT)][:PROBED]
    found = {name.removesuffix(first) for name in state for first in firsts if name.endswith(f".{first}")}
    return ["", *sorted(found, key=lambda prefix: (not _is_known(prefix), len(prefix), prefix))]


def _is_known(prefix: str) -> bool:
    """It is made of what wrappers write."""
    while known := next((known for known in PREFIXES if prefix.startswith(known)), None):
        prefix = prefix.removeprefix(known)
    return not prefix


def _fit(state: State, prefix: str, wanted: Mapping[str, torch.Tensor]) -> int:
    """How many of the wanted tensors, of their shape, are there under the prefix."""
    return sum(prefix + name in state and state[prefix + name].shape == value.shape for name, value in wanted.items())


def _require_fit(state: State, wanted: Mapping[str, torch.Tensor], path: Path) -> None:
    shapes = [
        f"{name} ({'×'.join(map(str, state[name].shape))}, the model has {'×'.join(map(str, value.shape))})"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = (
        ("missing", [name for name in wanted if name not in state and not name.endswith(UNIMPORTANT)]),
        ("unexpected", [name for name in state if name not in wanted and not name.endswith(UNIMPORTANT)]),
        ("of another shape", shapes),
    )
    said = [
        f"{len(names)} {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for what, names in problems
        if names
    ]
    if said:
        raise UserError(f"'{path}' does not fit the model; {'; '.join(said)}")
    broken = [
        n for n in wanted if n in state and state[n].is_floating_point() and not bool(torch.isfinite(state[n]).all())
    ]
    if broken:
        raise UserError(f"'{path}' holds infinities or NaN in {', '.join(broken[:3])}; take an earlier checkpoint")
