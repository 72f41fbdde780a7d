"""Parquet, a batch of a row group at a time."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.data.source import CHUNK, Mark
from llmft.data.table import Table
from llmft.schema.problem import Problem, UserError


@dataclass(frozen=True)
class ParquetFile:
    """A .parquet file."""

    file: Path
    name: str

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. To come to a chunk, the row group around it is read from its beginning."""
        import pyarrow
        import pyarrow.parquet

        first = start.line if start else 1
        number = 1
        try:
            with pyarrow.parquet.ParquetFile(self.file) as parquet:
                index = index_of(parquet.schema_arrow.metadata or {})
                for group in range(parquet.num_row_groups):
                    if (end := number + parquet.metadata.row_group(group).num_rows) <= first:
                        number = end
                        continue
                    for batch in parquet.iter_batches(CHUNK, row_groups=[group]):
                        if number >= first:
                            ids = [f"{self.name}:{row}" for row in range(number, number + len(batch))]
                            yield Mark(0, number), Table(_columns(batch), ids, index=index)
                        number += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            what = f"is no whole parquet file: {str(error).splitlines()[0]}"
            raise UserError(Problem(self.name, what), "the data") from error


def _columns(batch: Any) -> dict[str, list[Any]]:
    """The columns as Python's values.

    Hive, Impala and older Spark write texts as untyped bytes in UTF-8; 0.1 in 32 bits is read as 0.1, as in csv.
    """
    import pyarrow
    from pyarrow import compute

    found = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        kind = values.type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            with suppress(pyarrow.ArrowInvalid):  # bytes of something else
                values = values.cast(pyarrow.large_string())
        elif pyarrow.types.is_float32(kind):
            values = compute.cast(values.cast(pyarrow.string()), pyarrow.float64())
        found[name] = values.to_pylist()
    return found


def index_of(metadata: dict[bytes, bytes]) -> list[str]:
    """The columns that pandas wrote as the index of its rows, by what it says of them in the file.

    Format: https://pandas.pydata.org/docs/development/developer.html. A range has no column, and is an object there.
    """
    try:
        named = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return []
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
