"""From words to a search: what stands for several values in a sweep is a dimension here, and so is a range."""

import re
from collections.abc import Callable
from math import prod

from llmft.config import words
from llmft.config.brief import brief
from llmft.config.compose import SWEPT, Composed, compose
from llmft.config.grid import MAX_JOBS, WHOLE, axes_of, jobs, own_words
from llmft.config.load import checked
from llmft.schema.job import Job, in_jobs, noting, told
from llmft.schema.problem import Problem, UserError
from llmft.schema.space import Dimension, Space

RANGE = re.compile(r"(interval|log)\(([^,()]+),([^,()]+)\)")
OF_THE_SEARCH = re.compile(rf"{WHOLE.pattern}|search(\..*)?|task|trainer\.metric_for_best|dataset\.folds?")
HINT = "Give keys values or ranges: optimizer.lr='log(1e-5,1e-3)' trainer.batch_size=16,32 trainer.epochs='range(1,6)'."


Make = Callable[[dict[str, str]], Job]


def plan(command: str, arguments: list[str], multirun: bool) -> list[Job] | Space:
    """What the words mean: a search where `search` is chosen, else the jobs of a run or a sweep.

    Raises:
        UserError: with every problem at once.
    """
    searches = multirun or any(word.startswith("search") for word in arguments)
    # As those of one run, words of several values may be none at all; whether there is a search is seen without them.
    plain = [word for word in arguments if not searches or len(words.split(word.partition("=")[2])) == 1]
    try:
        composed = compose(command, plain)
    except UserError:
        if multirun:
            return jobs(command, arguments, multirun)  # which says in which job
        raise
    if isinstance(chosen := composed.tree.get("search"), dict):
        return _space(command, arguments, composed, grid=chosen.get("name") == "grid")
    return jobs(command, arguments, multirun, composed if plain == arguments else None)


def _space(command: str, arguments: list[str], composed: Composed, grid: bool) -> Space:
    """Every dimension is tried at its ends before the first trial."""
    given: dict[str, tuple[str, Dimension, bool]] = {}
    plain: list[str] = []
    problems: list[Problem] = []
    for word, typed in [*((word, True) for word in arguments), *((word, False) for word in own_words(composed))]:
        try:
            dimension = _dimension(command, word, "command line" if typed else SWEPT, grid)
        except UserError as error:
            problems += error.problems
            continue
        if dimension:
            given[dimension.key] = (word.partition("=")[0], dimension, typed)
        elif typed:
            plain.append(word)
    dimensions = [dimension for _, dimension, _ in given.values()]
    if not given and not problems:
        problems.append(Problem("search", "there is nothing to search", hint=HINT))
    if grid and (size := prod(len(dimension.words) for dimension in dimensions)) > MAX_JOBS:
        problems.append(Problem("search", f"a grid of {size:,} trials; {MAX_JOBS:,} are allowed"))
    if problems:
        raise UserError(problems)

    def make(values: dict[str, str]) -> Job:
        chosen = [(typed, f"{key}={values[dimension.key]}") for key, dimension, typed in given.values()]
        own = [word for typed, word in chosen if not typed]
        parsed = {key: words.parse([f"{key}={text}"])[0].value() for key, text in values.items()}
        config = checked(command, compose(command, plain + [word for typed, word in chosen if typed], own))
        return Job(parsed, config, recipe=brief(command, plain + [word for _, word in chosen]))

    return Space(dimensions, make, _first(dimensions, make))


def _dimension(command: str, word: str, where: str, grid: bool) -> Dimension | None:
    """What a word lets vary, if anything."""
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    if call := RANGE.fullmatch(value.replace(" ", "")):
        kind, low, high = call.groups()
        dimension = _range(name, kind, low, high, where)
        if grid:
            hint = f"Write them: {key}=A,B, or choose search=random or search=tpe."
            raise UserError(Problem(name, f"{value} has no end of values, and a grid tries all", where, hint))
    else:
        (axis,) = axes_of(command, [word], where)
        if not axis.swept:
            return None
        dimension = _choice(name, [text.removeprefix(f"{key}=") for text in axis.words], value, grid)
    if OF_THE_SEARCH.fullmatch(name):
        raise UserError(Problem(name, "is of the search as a whole; it takes one value", where))
    return dimension


def _range(name: str, kind: str, low: str, high: str, where: str) -> Dimension:
    try:
        dimension = Dimension(name, low=float(low), high=float(high), log=kind == "log")
    except ValueError:
        raise UserError(Problem(name, f"{kind}({low},{high}) wants two numbers", where)) from None
    if not dimension.low < dimension.high:
        raise UserError(Problem(name, f"{kind}({low},{high}) wants the lower number first", where))
    if dimension.log and dimension.low <= 0:
        hint = f"Write {name}=interval({low},{high})."
        raise UserError(Problem(name, f"{low} has no logarithm", where, hint))
    return dimension


def _choice(name: str, texts: list[str], value: str, grid: bool) -> Dimension:
    """Values that are tried as they are; whole numbers of `range` have an order that a sampler can use."""
    texts = list(dict.fromkeys(texts))
    if value.startswith("range(") and not grid and len(texts) > 2 and all(text.lstrip("-").isdigit() for text in texts):
        numbers = sorted(map(int, texts))
        return Dimension(name, low=numbers[0], high=numbers[-1], step=numbers[1] - numbers[0])
    return Dimension(name, words=tuple(texts))


def _first(dimensions: list[Dimension], make: Make) -> Job:
    """The job of the first values; every other sample of every dimension is checked beside it.

    Raises:
        UserError: with the problems of all of them, and where they differ in what is to be compared.
    """
    start = {dimension.key: dimension.samples[0] for dimension in dimensions}
    points = [start | {dimension.key: word} for dimension in dimensions for word in dimension.samples[1:]]
    wrong: dict[Problem, list[str]] = {}
    found: list[Job] = []
    for point in [start, *points]:
        changed = {key: word for key, word in point.items() if word != start[key]}
        with noting(wrong, told(changed or start)):
            found.append(make(point))
    if wrong:
        raise UserError(in_jobs(wrong, 1 + len(points)))
    kinds = {(job.config.task.name, job.config.metric_for_best) for job in found}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{metric} of {task}" for task, metric in kinds))
        raise UserError(Problem("search", f"trials can't be compared: {names}", hint="Set trainer.metric_for_best."))
    return found[0]
