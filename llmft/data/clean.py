"""Cleaning by `dataset.clean`: repairs texts in every split, and leaves rows out of train."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from llmft.data.duplicates import text_roles, without_duplicates, without_leaks, without_near
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.dataset import CleanConfig, DatasetConfig
from llmft.schema.problem import Problem, UserError, missing_package, plural

OF_TEXTS = ("unicode", "normalize", "min_characters", "max_characters", "quality", "near_duplicates")

# Limits of `flaw`. Shares are of all characters except spaces, unless stated otherwise.
LETTERS = 0.5  # minimum share of letters, marks, and digits; Gopher: 80% of words have a letter
PUNCTUATION = 0.4  # maximum share of punctuation
RUNS = 0.2  # maximum share in runs of at least RUN equal characters, such as `=====`
RUN = 5
WORD = (1.5, 15.0)  # mean length of words, in scripts with upper case and from WORDS words on; Gopher: 3 to 10
WORDS = 20
LINES = 0.3  # maximum share of characters in repeated lines; Gopher: 0.2 to 0.3
PASSAGES = 0.3  # maximum share of positions whose next PASSAGE characters are a repetition; Gopher: 0.1 to 0.2 of words
PASSAGE = 40
_RUN = re.compile(rf"(\S)\1{{{RUN - 1},}}")
_SPACE = re.compile(r"\s+")


def libraries(config: DatasetConfig) -> list[str]:
    """The names of the optional packages that the cleaning needs.

    Raises:
        UserError: naming those that are not installed.
    """
    needed = {"ftfy": "unicode"} if config.clean.unicode else {}
    if config.train and config.clean.near_duplicates is not None:
        needed["datasketch"] = "near_duplicates"
    problems = [
        problem
        for package, key in needed.items()
        for problem in missing_package(f"dataset.clean.{key}", key, package, extra="clean")
    ]
    if problems:
        raise UserError(problems)
    return list(needed)


def check_roles(clean: CleanConfig, roles: dict[str, Column]) -> None:
    """Raise UserError for cleaning of texts if the task has no texts."""
    if text_roles(roles):
        return
    asked = [f"dataset.clean.{key}" for key in OF_TEXTS if getattr(clean, key)]
    if asked:
        what = "must be unset: it cleans texts, and the rows of this task have none"
        raise UserError([Problem(key, what, hint="For tables there are duplicates and leaks.") for key in asked])


def repair(table: Table, roles: dict[str, Column], clean: CleanConfig) -> tuple[Table, Counter[str]]:
    """The table with repaired texts, and how many were changed.

    A model that was trained on repaired texts needs them at inference too, so this runs on every split and in every
    command. Texts that offsets refer to (`Column.fixed`) are not touched.
    """
    mending = _repair_function(clean)
    if mending is None:
        return table, Counter()
    columns, changed = dict(table.columns), 0
    texts = (*text_roles(roles), *(role for role, spec in roles.items() if spec.kind == "texts"))
    _check_texts(columns, texts, clean, ("unicode", "normalize"))
    for role in texts:
        if role in columns and not roles[role].fixed:
            before = columns[role]
            columns[role] = [_repaired(value, mending) for value in before]
            changed += sum(old != new for old, new in zip(before, columns[role], strict=True))
    return Table(columns, table.ids), Counter({"texts were mended": changed} if changed else {})


def _check_texts(
    columns: dict[str, list[Any]], texts: Iterable[str], clean: CleanConfig, keys: tuple[str, ...]
) -> None:
    """Raise UserError for cleaning of texts if these rows have theirs inside other values, such as conversations."""
    if columns and not columns.keys() & {*texts}:
        asked = [f"dataset.clean.{key}" for key in keys if getattr(clean, key)]
        what = f"must be unset: it cleans texts, and these rows have theirs inside {', '.join(columns)}"
        if asked:
            raise UserError([Problem(key, what, hint="Leave it out.") for key in asked], "the data")


def _repaired(value: Any, mending: Callable[[str], str]) -> Any:
    """A repaired text, or list of texts."""
    if isinstance(value, list):
        return list(map(mending, value))
    return value if value is None else mending(value)


def _repair_function(clean: CleanConfig) -> Callable[[str], str] | None:
    if clean.unicode:
        import ftfy

        # Only damage by wrong decoding. Curly quotes, wide letters, ligatures, and line ends are what the author wrote.
        config = ftfy.TextFixerConfig(
            unescape_html=False,
            fix_latin_ligatures=False,
            fix_character_width=False,
            uncurl_quotes=False,
            fix_line_breaks=False,
            normalization=clean.normalize,
            explain=False,
        )
        return partial(ftfy.fix_text, config=config)
    return partial(unicodedata.normalize, clean.normalize) if clean.normalize else None


def flaw_of_row(texts: list[str], clean: CleanConfig) -> str:
    """Why a row is left out of train, judged by itself, as the text of a note; empty if it stays."""
    lengths = [len(text) for text in texts]
    if clean.min_characters is not None and min(lengths) < clean.min_characters:
        return f"rows with a text shorter than {clean.min_characters} characters were left out"
    if clean.max_characters is not None and max(lengths) > clean.max_characters:
        return f"rows with a text longer than {clean.max_characters} characters were left out"
    if clean.quality and (found := next(filter(None, map(flaw, texts)), "")):
        return f"rows with {found} were left out"
    return ""


def without_flawed(table: Table, roles: dict[str, Column], clean: CleanConfig) -> tuple[Table, Counter[str]]:
    """The rows that stay by `flaw_of_row`, and the number of the others by reason."""
    counts: Counter[str] = Counter()
    if clean.min_characters is None and clean.max_characters is None and not clean.quality:
        return table, counts
    _check_texts(table.columns, text_roles(roles), clean, ("min_characters", "max_characters", "quality"))
    columns = [table.columns[role] for role in text_roles(roles) if role in table.columns]
    kept = []
    for row, texts in enumerate(zip(*columns, strict=True)):
        if why := flaw_of_row([text or "" for text in texts], clean):
            counts[why] += 1
        else:
            kept.append(row)
    return table.take(kept), counts


def change_notes(split: str, counts: Counter[str]) -> list[str]:
    """A line for each kind of change."""
    return [f"{split}: {plural(number, what)}" for what, number in counts.items()]


def clean_train(
    tables: dict[str, Table], roles: dict[str, Column], clean: CleanConfig
) -> tuple[dict[str, Table], list[str]]:
    """The splits, with train cleaned by `dataset.clean`, and a line for each kind of row that was left out.

    Only train loses rows: metrics must be of exactly the rows that the user gave for them.
    """
    if "train" not in tables:
        return tables, []
    others = [table for name, table in tables.items() if name != "train"] if clean.leaks else []
    train, counts = without_flawed(tables["train"], roles, clean)
    notes = change_notes("train", counts)
    if clean.leaks:
        train, lines = without_leaks(train, others, roles)
        notes += lines
    if clean.duplicates != "keep":
        train, lines = without_duplicates(train, roles, agreeing=clean.duplicates == "agreeing")
        notes += lines
    if clean.near_duplicates is not None:
        _check_texts(train.columns, text_roles(roles), clean, ("near_duplicates",))
        train, lines = without_near(train, others, roles, clean.near_duplicates)
        notes += lines
    return tables | {"train": train}, notes


def flaw(text: str) -> str:
    """What is wrong with a text that does not look like any language, such as "too few letters"; empty for a good one.

    The rules follow Gopher (Rae et al. 2021, appendix A.1.1) and C4 (Raffel et al. 2020, section 2.2), but count
    characters instead of words, since not every script separates words, and need no word list. The limits are wide:
    prose, verse, mathematics, documentation, and short texts in any script pass.
    """
    counts = Counter(text)  # so that the category is looked up once per distinct character
    kinds = Counter[str]()
    for character, count in counts.items():
        if not character.isspace():
            kinds[unicodedata.category(character)] += count
    solid = kinds.total()
    if not solid:
        return ""
    if sum(count for kind, count in kinds.items() if kind[0] in "LMN") < LETTERS * solid:
        return "too few letters"
    if sum(count for kind, count in kinds.items() if kind[0] == "P") > PUNCTUATION * solid:
        return "too much punctuation"
    if sum(len(run[0]) for run in _RUN.finditer(text)) > RUNS * solid:
        return "long runs of one character"
    if _strange_words(text, kinds):
        return "words of unusual length"
    if _repeated_lines(text) > LINES:
        return "repeated lines"
    if _repeated_passages(text) > PASSAGES:
        return "repeated passages"
    return ""


def _strange_words(text: str, kinds: Counter[str]) -> bool:
    """Whether the mean word length is outside WORD, in a script with upper case: those separate words by spaces."""
    words = text.split()
    cased = sum(kinds[kind] for kind in ("Lu", "Ll", "Lt"))
    if (len(text) < WORDS * WORD[1] and len(words) < WORDS) or 2 * cased < kinds.total():
        return False
    return not WORD[0] <= kinds.total() / len(words) <= WORD[1]


def _repeated_lines(text: str) -> float:
    """The share of characters in lines that repeat an earlier line."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


def _repeated_passages(text: str) -> float:
    """The share of positions whose next PASSAGE characters also follow an earlier position."""
    text = _SPACE.sub(" ", text)
    places = len(text) - PASSAGE + 1
    if places < PASSAGE:
        return 0.0
    return 1 - len({text[place : place + PASSAGE] for place in range(places)}) / places
