"""What `dataset.clean` asks for: texts that are mended in every split, and rows of `train` that are left out."""

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

# Limits of `flaw`.
LETTERS = 0.5  # share of letters, marks and digits among what is no space, at least; Gopher: 80% of words have a letter
PUNCTUATION = 0.4  # share of punctuation among it, at most
RUNS = 0.2  # share of it in runs of RUN equal characters, at most, such as `=====`
RUN = 5
WORD = (1.5, 15.0)  # mean length of words, where there are WORDS of them in letters that have cases; Gopher: 3 to 10
WORDS = 20
LINES = 0.3  # share of the characters in lines that stood before, at most; Gopher: 0.2 to 0.3
PASSAGES = 0.3  # share of places whose next PASSAGE characters stood before, at most; Gopher: 0.1 to 0.2 of words
PASSAGE = 40
_RUN = re.compile(rf"(\S)\1{{{RUN - 1},}}")
_SPACE = re.compile(r"\s+")


def libraries(config: DatasetConfig) -> list[str]:
    """The packages that the cleaning of these data needs.

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
    """Raise UserError for what is asked of texts where the task has none."""
    if text_roles(roles):
        return
    asked = [f"dataset.clean.{key}" for key in OF_TEXTS if getattr(clean, key)]
    if asked:
        what = "is for texts that may be mended, and the rows of this task have none"
        raise UserError([Problem(key, what, hint="For tables there are duplicates and leaks.") for key in asked])


def mend(table: Table, roles: dict[str, Column], clean: CleanConfig) -> tuple[Table, Counter[str]]:
    """The table with its texts mended, and how many were changed.

    The model has learnt from mended texts, so whatever it is to answer is mended the same way, in every split and
    every command.
    """
    mending = _mending(clean)
    if mending is None:
        return table, Counter()
    columns, changed = dict(table.columns), 0
    texts = (*text_roles(roles), *(role for role, spec in roles.items() if spec.kind == "texts"))
    _check_texts(columns, texts, clean, ("unicode", "normalize"))
    for role in texts:
        if role in columns and not roles[role].fixed:
            before = columns[role]
            columns[role] = [_mended(value, mending) for value in before]
            changed += sum(old != new for old, new in zip(before, columns[role], strict=True))
    return Table(columns, table.ids), Counter({"texts were mended": changed} if changed else {})


def _check_texts(
    columns: dict[str, list[Any]], texts: Iterable[str], clean: CleanConfig, keys: tuple[str, ...]
) -> None:
    """Raise UserError for what is asked of texts where these rows have none as a column of their own."""
    if columns and not columns.keys() & {*texts}:
        asked = [f"dataset.clean.{key}" for key in keys if getattr(clean, key)]
        what = f"is for texts, and these rows have theirs inside {', '.join(columns)}"
        if asked:
            raise UserError([Problem(key, what, hint="Leave it out.") for key in asked], "the data")


def _mended(value: Any, mending: Callable[[str], str]) -> Any:
    """A text, or each of a list of texts."""
    if isinstance(value, list):
        return list(map(mending, value))
    return value if value is None else mending(value)


def _mending(clean: CleanConfig) -> Callable[[str], str] | None:
    if clean.unicode:
        import ftfy

        # Only what no writer meant: quotes, wide letters and ligatures are right as they are, and so are line ends.
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


def fault(texts: list[str], clean: CleanConfig) -> str:
    """Why a row is left out whatever the others are, as notes say it; nothing for one that stays."""
    lengths = [len(text) for text in texts]
    if clean.min_characters is not None and min(lengths) < clean.min_characters:
        return f"rows with a text shorter than {clean.min_characters} characters were left out"
    if clean.max_characters is not None and max(lengths) > clean.max_characters:
        return f"rows with a text longer than {clean.max_characters} characters were left out"
    if clean.quality and (found := next(filter(None, map(flaw, texts)), "")):
        return f"rows with {found} were left out"
    return ""


def without_faults(table: Table, roles: dict[str, Column], clean: CleanConfig) -> tuple[Table, Counter[str]]:
    """The rows that can stay whatever the others are, and how many cannot, by the reason."""
    counts: Counter[str] = Counter()
    if clean.min_characters is None and clean.max_characters is None and not clean.quality:
        return table, counts
    _check_texts(table.columns, text_roles(roles), clean, ("min_characters", "max_characters", "quality"))
    columns = [table.columns[role] for role in text_roles(roles) if role in table.columns]
    kept = []
    for row, texts in enumerate(zip(*columns, strict=True)):
        if why := fault([text or "" for text in texts], clean):
            counts[why] += 1
        else:
            kept.append(row)
    return table.take(kept), counts


def notes_of(split: str, counts: Counter[str]) -> list[str]:
    """A line on each kind of change."""
    return [f"{split}: {plural(number, what)}" for what, number in counts.items()]


def left_for_training(
    tables: dict[str, Table], roles: dict[str, Column], clean: CleanConfig
) -> tuple[dict[str, Table], list[str]]:
    """The splits, `train` without the rows that it is better off without, and a line on each kind that was left out.

    Only `train` loses rows: scores are of the rows that the user chose for them.
    """
    if "train" not in tables:
        return tables, []
    others = [table for name, table in tables.items() if name != "train"] if clean.leaks else []
    train, counts = without_faults(tables["train"], roles, clean)
    notes = notes_of("train", counts)
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
    """What a text has too much or too little of, if it looks like no language, whichever it is; nothing for a good one.

    The rules follow those of Gopher (Rae et al. 2021, appendix A.1.1) and of C4 (Raffel et al. 2020, 2.2). They count
    characters in place of words, since a language need not part its words, and need no list of words. The limits are
    wide: prose, verse, mathematics, documentation and short texts in any script pass. What fails is what nobody wrote
    to be read.
    """
    counts = Counter(text)
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
        return "words of a strange length"
    if _again(text) > LINES:
        return "repeated lines"
    if _passages(text) > PASSAGES:
        return "repeated passages"
    return ""


def _strange_words(text: str, kinds: Counter[str]) -> bool:
    """Whether words are shorter or longer than people write them, in letters with cases: those scripts have spaces."""
    words = text.split()
    cased = sum(kinds[kind] for kind in ("Lu", "Ll", "Lt"))
    if (len(text) < WORDS * WORD[1] and len(words) < WORDS) or 2 * cased < kinds.total():
        return False
    return not WORD[0] <= kinds.total() / len(words) <= WORD[1]


def _again(text: str) -> float:
    """The share of the characters that are in lines which stood before."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


def _passages(text: str) -> float:
    """The share of places from which the next PASSAGE characters are the same as from an earlier place."""
    text = _SPACE.sub(" ", text)
    places = len(text) - PASSAGE + 1
    if places < PASSAGE:
        return 0.0
    return 1 - len({text[place : place + PASSAGE] for place in range(places)}) / places
