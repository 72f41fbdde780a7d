"""Which column of a table is the label, where nobody has said it: by its name, or the last one."""

from llmft.data.read import chunks, files_of, read_split
from llmft.data.roles import index_columns
from llmft.schema.config import Config
from llmft.schema.problem import UserError
from llmft.tasks.tables.config import TableSection

NAMES = ("label", "target", "click", "class", "y")  # in any case; `label` itself needs no guess


def with_label(config: Config) -> tuple[Config, list[str]]:
    """The configuration with its `dataset.columns.label`, and a line to print if it was guessed.

    It then stands in RUN/config.yaml, so that later commands and other files mean the same column. Nothing is guessed
    for other tasks, for data of the hub, and for files that cannot be read, which is said when they are.
    """
    dataset = config.dataset
    if (
        not isinstance(config.task, TableSection)
        or "label" in dataset.columns
        or dataset.format in ("hub", "synthetic")
    ):
        return config, []
    columns = _columns(config)
    if not columns or "label" in columns:
        return config, []
    task, taken = config.task, set[str]()
    for given in (task.numbers, task.categories, task.dates, task.texts, task.ignore, *dataset.columns.values()):
        taken |= {given} if isinstance(given, str) else {*given}
    free = [name for name in columns if name not in taken]
    named = [name for wanted in NAMES for name in free if name.lower() == wanted]
    if not free:
        return config, []
    label, why = (named[0], "by its name") if named else (free[-1], "the last column")
    note = f"label: {label!r}, {why}; if it is another, write dataset.columns.label=COLUMN"
    found = dataset.model_copy(update={"columns": {**dataset.columns, "label": label}})
    return config.model_copy(update={"dataset": found}), [note]


def _columns(config: Config) -> list[str]:
    """The columns of the first rows of `dataset.train`, without those that count the rows."""
    dataset = config.dataset
    if not dataset.train:
        return []
    try:
        if dataset.format == "sklearn":
            return list(read_split(dataset, "train", dataset.train)[0].columns)
        _, _, table = next(chunks(dataset, files_of(dataset, "train", dataset.train)))
    except (UserError, StopIteration):
        return []
    counting = index_columns(table)
    return [name for name in table.columns if name not in counting]
