"""The order of the house: folders in the order of the data, no circle, no arrow back, no name twice, no chain that
nobody can follow.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest
from sources import ROOT, SOURCES

ORDER = {
    "passes": (
        ("errors", "nearest"),
        ("graph",),
        ("channels", "check", "batchnorm", "batch", "colours"),
        ("maps",),
        ("network",),
        ("target", "heads", "deploy"),
        ("space",),
    ),
    "fnatool": (
        ("escaping", "seeds", "specs", "terminal"),
        ("runtime",),
        ("files",),
        ("nn", "export", "data"),
        ("tasks", "supernet"),
        ("model",),
        ("imitation",),
        ("training", "latency"),
        ("search",),
        ("report", "deploy"),
        ("cli", "__main__"),
    ),
}
LONGEST = 15  # files, each importing the next, of one package
BESIDE = 4  # files of fnatool beside its folders


def dotted(name: str) -> str:
    """passes/graph/view.py → passes.graph.view; a package by its own name."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


TREES = {dotted(name): ast.parse(path.read_text()) for name, path in SOURCES.items()}


def _imports(module: str) -> Iterator[str]:
    """Modules of ours that module imports, for types too and inside functions."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in TREES)
        elif isinstance(node, ast.ImportFrom) and node.module in TREES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in TREES else node.module


IMPORTS = {module: sorted(set(_imports(module)) - {module}) for module in TREES}


def room(module: str) -> str:
    """The folder or file directly in a package: passes.graph of passes.graph.view."""
    return ".".join(module.split(".")[:2])


def rank(module: str) -> int:
    package, _, name = room(module).partition(".")
    return next(number for number, names in enumerate(ORDER[package]) if name in names)


def arrows() -> list[tuple[str, str]]:
    """Imports of one package between its files; the package itself, which offers what is public, is none of them."""
    return [
        (module, other)
        for module, others in IMPORTS.items()
        for other in others
        if module.split(".")[0] == other.split(".")[0] and "." in module and "." in other
    ]


def test_every_folder_has_a_place_in_the_order() -> None:
    rooms = {room(module) for module in TREES if "." in module}
    assert rooms == {f"{package}.{name}" for package, floors in ORDER.items() for floor in floors for name in floor}


def test_no_file_imports_one_of_a_later_folder() -> None:
    assert [f"{a} → {b}" for a, b in arrows() if rank(b) > rank(a)] == []


def test_passes_know_nothing_of_fnatool() -> None:
    assert [
        a for a, others in IMPORTS.items() if a.startswith("passes") and any(b.startswith("fnatool") for b in others)
    ] == []


def _depths() -> dict[str, int]:
    """Module → the files of the longest chain of imports that begins with it. A circle ends the test."""
    following: dict[str, list[str]] = defaultdict(list)
    for a, b in arrows():
        following[a].append(b)
    depths: dict[str, int] = {}
    path: list[str] = []

    def depth(module: str) -> int:
        if module in path:
            pytest.fail(f"a circle: {' → '.join([*path[path.index(module) :], module])}")
        if module not in depths:
            path.append(module)
            depths[module] = 1 + max(map(depth, following[module]), default=0)
            path.pop()
        return depths[module]

    for module in list(TREES):
        depth(module)
    return depths


def test_no_circle_and_no_long_chain() -> None:
    depths = _depths()
    longest = max(depths, key=lambda module: depths[module])
    assert depths[longest] <= LONGEST, longest


def test_no_public_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_few_files_stand_beside_the_folders_of_fnatool() -> None:
    assert len(list((ROOT / "fnatool").glob("*.py"))) <= BESIDE
