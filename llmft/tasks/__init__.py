"""One file a task. `build` finds the class of a task by the task's name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmft.schema.plugins import plugins
from llmft.schema.task import TaskConfig, task_types

if TYPE_CHECKING:
    from llmft.tasks.task import Task


def build(config: TaskConfig) -> "Task[Any]":
    """The task that a configuration names: from the file of its name, the class of its name, or an entry point."""
    if config.name in task_types():
        module = import_module(f"llmft.tasks.{config.name}")
        return getattr(module, type(config).__name__)(config)
    return plugins("llmft.tasks")[config.name].load()(config)
