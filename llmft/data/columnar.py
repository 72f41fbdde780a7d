"""Files with a type for each column: parquet, and the .arrow files that the library `datasets` saves."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.data.files import by_ending
from llmft.data.source import CHUNK, Mark, Table
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
                            yield Mark(0, number), Table(_values(batch), ids, index=index)
                        number += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            what = f"is no whole parquet file: {str(error).splitlines()[0]}"
            raise UserError(Problem(self.name, what), "the data") from error


def _values(batch: Any) -> dict[str, list[Any]]:
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


def files_of_saved(folder: Path, suffixes: tuple[str, ...] = (".arrow",)) -> list[Path]:
    """The files of a Dataset that `save_to_disk` wrote, in their order; of another folder, those of `suffixes`.

    Other .arrow files in it are caches of `map` and `filter`, whose rows would come twice.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [folder / Path(entry["filename"]).name for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return by_ending(folder, suffixes)


def splits_of_saved(folder: Path) -> list[str]:
    """The splits of a saved DatasetDict; none for a folder that is none."""
    try:
        return list(map(str, json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []


@dataclass(frozen=True)
class ArrowFile:
    """An .arrow file, a stream or a file of Arrow's. Numbers of classes become their names."""

    file: Path
    name: str
    """The file as row ids name it."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`. A row is named by its number; batches before `start` are read over."""
        import pyarrow
        from datasets import Features

        first, number = start.line if start else 1, 1
        try:
            with pyarrow.memory_map(str(self.file)) as file:  # to read over batches costs nothing
                reader: Any
                try:
                    reader = pyarrow.ipc.open_stream(file)
                except pyarrow.ArrowInvalid:
                    file.seek(0)
                    whole = pyarrow.ipc.open_file(file)
                    reader = map(whole.get_batch, range(whole.num_record_batches))
                    schema = whole.schema
                else:
                    schema = reader.schema
                features = Features.from_arrow_schema(schema)
                for batch in reader:
                    for begin in range(0, len(batch), CHUNK):
                        part = batch.slice(begin, CHUNK)
                        if number >= first and len(part):
                            ids = [f"{self.name}:{row}" for row in range(number, number + len(part))]
                            columns = part.to_pydict()
                            yield Mark(0, number), Table({k: named(v, features[k]) for k, v in columns.items()}, ids)
                        number += len(part)
        except (pyarrow.ArrowException, OSError) as error:
            what = f"is no whole Arrow file: {str(error).splitlines()[0]}"
            raise UserError(Problem(self.name, what), "the data") from error


def named(values: list[Any], feature: Any) -> list[Any]:
    """The values of a column, with names for the numbers of classes, also in lists such as of a tag for each word.

    A number may be written as text, unless a class is called so; -1 is no class.
    """
    from datasets import ClassLabel

    inner = getattr(feature, "feature", None)
    if isinstance(feature, ClassLabel):
        return [_name(value, feature) for value in values]
    if isinstance(inner, ClassLabel):
        return [value if value is None else [_name(one, inner) for one in value] for value in values]
    return values


def _name(value: Any, feature: Any) -> Any:
    if isinstance(value, str) and value not in feature.names and re.fullmatch(r"-?\d+", value):
        value = int(value)
    if not isinstance(value, int):
        return value
    return feature.int2str(value) if value >= 0 else None
