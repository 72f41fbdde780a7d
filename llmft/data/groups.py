"""Rows that belong together, such as those of one patient: no split parts them. `dataset.columns.group` says which."""

from collections.abc import Sequence

import numpy
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from llmft.data.roles import has_part
from llmft.data.table import Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig

GROUP = "group"


def with_group(
    config: DatasetConfig, roles: dict[str, Column], table: Table, split: str
) -> tuple[DatasetConfig, dict[str, Column]]:
    """The section and the roles to read a split by: those of the task, and the group where one is named.

    Rows are taken from train alone, so that other splits may lack the column. Where they have it, it is no feature.
    """
    name = config.columns.get(GROUP)
    if name is None:
        return config, roles
    if split == "train" or (isinstance(name, str) and has_part(table, name)):
        return config, {**roles, GROUP: Column("group", required=False)}
    columns = {role: column for role, column in config.columns.items() if role != GROUP}
    return config.model_copy(update={"columns": columns}), roles


def together(keys: Sequence[str], groups: Sequence[str | None] | None) -> list[str]:
    """A name for each row; rows of the same name are never parted.

    Args:
        keys: what the model sees of each row: equal inputs belong together.
        groups: where given, rows of one group do too, and so do groups that share an input.
    """
    if groups is None:
        return list(keys)
    _, key = numpy.unique(numpy.asarray(keys, dtype=object), return_inverse=True)
    own = [f"group {group}" if group is not None else f"key {row}" for row, group in zip(key, groups, strict=True)]
    _, group = numpy.unique(numpy.asarray(own, dtype=object), return_inverse=True)
    size = int(key.max()) + 1 + int(group.max()) + 1
    links = coo_matrix((numpy.ones(len(keys)), (key, group + key.max() + 1)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return [str(parts[row]) for row in key]
