"""All steps that a random graph may take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from tests.random_graphs import basic, contrib, inner, maths, windows
from tests.random_graphs.graph import Graph


def steps_of(module: ModuleType) -> list[Callable[[Graph], str]]:
    """Functions of a module that take a graph and nothing else."""
    functions = [
        found for _, found in inspect.getmembers(module, inspect.isfunction) if found.__module__ == module.__name__
    ]
    return [found for found in functions if list(inspect.signature(found).parameters) == ["graph"]]


STEPS = [step for module in (basic, contrib, inner, maths, windows) for step in steps_of(module)]
