"""A folder of texts by class: `positive/1.txt`, `negative/1.txt`. The folder of a text is its label."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmft.data.encodings import nul, opened
from llmft.data.files import ends
from llmft.data.source import CHUNK, START, FileGroup, Mark
from llmft.data.table import MANY, Table, listed
from llmft.schema.problem import Problem, UserError

TEXTS = (".txt", ".text", ".md")


def files_by_class(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The texts one level below a folder, class by class."""
    return sorted(file for file in folder.glob("*/*") if ends(file, suffixes) and file.is_file())


@dataclass(frozen=True)
class ClassFolders(FileGroup):
    """Texts, each a file."""

    def chunks(self, start: Mark | None = None) -> Iterator[tuple[Mark, Table]]:
        """See `Source`; all rows, whatever `start` is. A row is named by its file, whose last line end is no text."""
        table = Table({"text": [], "label": []})
        folders = {file.parent.parent for file in self.files}
        inside = sum(one.is_file() and not one.name.startswith(".") for folder in folders for one in folder.rglob("*"))
        if others := inside - len(self.files):
            table.left_out["other files were left out: a text lies in CLASS/NAME.txt"] = others
        problems: list[Problem] = []
        for file, name in zip(self.files, self.names, strict=True):
            try:
                with opened(file, name, self.encoding) as stream:
                    text = stream.read()
                if "\0" in text:
                    raise UserError(nul(file, name), "the data")
            except UserError as error:
                problems += error.problems
                if len(problems) >= MANY:
                    break
                continue
            table.columns["text"].append(text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r"))
            table.columns["label"].append(file.parent.name)
            table.ids.append(f"{name}:1")
            if len(table) == CHUNK:
                yield START, table
                table = Table({"text": [], "label": []})
        if len(table):
            yield START, table
        if problems:
            raise UserError(listed(problems), "the data")
