"""Rules of tasks on raw text: what their blocks can't be combined with."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.problem import Problem
from llmft.schema.tasks import task_types


def _pretraining_is_on_raw_text(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "pretrain" or config.task.pretrains:
        return []
    names = ", ".join(name for name, task in task_types().items() if task.pretrains)
    hint = f"Write llmft finetune; llmft pretrain is for {names}."
    return [Problem("task", f"{config.task.name} learns from rows that say what is right", origin("task.name"), hint)]


def _blocks_are_read_as_they_are(config: Config, origin: Origin) -> list[Problem]:
    dataset, name = config.dataset, config.task.name
    if not config.task.pretrains or not config.trains:
        return []
    found = {
        "dataset.streaming": (dataset.streaming, "raw text is read part by part anyway, and kept on the disk"),
        "dataset.folds": (dataset.folds, "folds are of rows in memory"),
        "dataset.columns.group": ("group" in dataset.columns, "no split parts a document; there are no other groups"),
        "model.freeze": (
            "encoder" in config.model.freeze,
            "each epoch cuts the text elsewhere, so that nothing can be computed once",
        ),
        "adapter": (config.adapter.name == "prefix", f"a prefix is not offered for {name}"),
    }
    hints = {"model.freeze": "Name parts, such as [embeddings,layers.0-3].", "adapter": "Write adapter=lora."}
    return [
        Problem(key, what, origin(key), hints.get(key, "Leave it out."))
        for key, (asked, what) in found.items()
        if asked
    ]


RULES = (_pretraining_is_on_raw_text, _blocks_are_read_as_they_are)
