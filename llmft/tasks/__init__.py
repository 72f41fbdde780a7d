"""The tasks by family. `build` finds the class of a task by the task's name, which is that of its file."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from llmft.schema.plugins import plugins
from llmft.schema.task import TaskConfig, task_types

if TYPE_CHECKING:
    from llmft.tasks.task import Task


def build(config: TaskConfig) -> "Task[Any]":
    """The task that a configuration names: from the file of its name, the class of its name, or an entry point."""
    if config.name in task_types():
        families = [family.name for family in iter_modules(__path__) if family.ispkg]
        (name,) = filter(find_spec, [f"{__name__}.{family}.{config.name}" for family in families])
        module = import_module(name)
        return getattr(module, type(config).__name__)(config)
    return plugins("llmft.tasks")[config.name].load()(config)
