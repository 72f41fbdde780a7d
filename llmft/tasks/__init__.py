"""The tasks by family. A task is two files: FAMILY/NAME.py, and its section in the FAMILY/config.py without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmft.schema.tasks import TaskConfig, plugins, task_types

if TYPE_CHECKING:
    from llmft.tasks.task import Task


def build(config: TaskConfig) -> "Task[Any]":
    """The task that a configuration names: the class of its section's name, in the file of its name beside the section.

    A task of another package comes by its entry point.
    """
    if config.name in task_types():
        module = import_module(f"{type(config).__module__.removesuffix('.config')}.{config.name}")
        return getattr(module, type(config).__name__)(config)
    return plugins("llmft.tasks")[config.name].load()(config)
