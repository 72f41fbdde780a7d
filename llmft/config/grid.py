"""Turns overrides into the jobs of a sweep: `optimizer.lr=1e-5,3e-5 seed=range(3)` gives six, each checked like any
run.

With a search (`search=tpe`), the same overrides, and ranges such as `interval(0,0.5)`, are the dimensions of its search
space.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from llmft.config import overrides
from llmft.config.compose import SWEPT, Composed, compose, files_read_once, loader
from llmft.config.diff import shorten
from llmft.config.load import checked
from llmft.schema.job import Dimension, Job, Space, as_overrides, collect_problems, format_value, in_jobs
from llmft.schema.problem import Problem, UserError

MAX_JOBS = 1000  # checking one takes 0.06 s, so 1,000 take a minute
CALL = re.compile(r"(choice|range|interval|log|glob|shuffle|sort|tag)\((.*)\)", re.DOTALL)
WHOLE = re.compile(r"run\.dir|resume|command|sweep\..*")
RANGE = re.compile(r"(interval|log)\(([^,()]+),([^,()]+)\)")
OF_THE_SEARCH = re.compile(rf"{WHOLE.pattern}|search(\..*)?|task|trainer\.metric_for_best|dataset\.folds?")
HINT = "Write for example optimizer.lr='log(1e-5,1e-3)' trainer.batch_size=16,32 trainer.epochs='range(1,6)'."
Make = Callable[[dict[str, str]], Job]


@dataclass(frozen=True)
class Axis:
    """An override with its values: only itself, unless it is swept."""

    key: str
    words: list[str]
    swept: bool


def plan(command: str, arguments: list[str], multirun: bool) -> list[Job] | Space:
    """The jobs of a run or a sweep; or a search space, if `search` is chosen.

    Raises:
        UserError: with every problem at once.
    """
    with files_read_once():
        return _plan(command, arguments, multirun)


def _plan(command: str, arguments: list[str], multirun: bool) -> list[Job] | Space:
    searches = multirun or any(word.startswith("search") for word in arguments)
    # Overrides with several values may be invalid in a single run. They do not matter for whether there is a search.
    plain = [word for word in arguments if not searches or len(overrides.split(word.partition("=")[2])) == 1]
    try:
        composed = compose(command, plain)
    except UserError:
        if multirun:
            return jobs(command, arguments, multirun)  # its error says in which jobs
        raise
    if isinstance(chosen := composed.tree.get("search"), dict):
        return _space(command, arguments, composed, grid=chosen.get("name") == "grid")
    return jobs(command, arguments, multirun, composed if plain == arguments else None)


def jobs(command: str, arguments: list[str], multirun: bool, read: Composed | None = None) -> list[Job]:
    """The jobs of a sweep, in order; the last override changes fastest.

    A recipe may have its own sweep, `hydra.sweeper.params`. The command line wins over it.

    Args:
        multirun: whether `-m` was given. Without it every override has one value, and only a recipe can ask for a
            sweep.
        read: the overrides composed as one run, if that has been done already.

    Returns:
        One job without values if nothing is swept.

    Raises:
        UserError: with the problems of all jobs, each once.
    """
    axes = axes_of(command, arguments, "command line") if multirun else [Axis("", [word], False) for word in arguments]
    # A recipe's own sweep is only known once the recipe is composed, so combinations can expand into further ones.
    todo = deque((values, typed, list[str]()) for values, typed in _combinations(axes))
    found: list[Job] = []
    wrong: dict[Problem, list[str]] = {}
    count = 0
    while todo:
        values, typed, swept = todo.popleft()
        with collect_problems(wrong, as_overrides(values)):
            composed = read if read and not (multirun or swept) else compose(command, typed, swept)
            if (
                not swept
                and (composed.multirun or multirun)
                and (own := axes_of(command, from_sweeper(composed), SWEPT))
            ):
                # At the front and reversed, because extendleft reverses: jobs stay in the order of the overrides.
                todo.extendleft([(values | more, typed, words) for more, words in _combinations(own)][::-1])
                continue
            found += in_folds(Job(values, checked(command, composed), recipe=shorten(command, typed + swept)))
        count += 1
    if len(found) > MAX_JOBS:
        raise UserError(Problem("dataset.folds", f"must give at most {MAX_JOBS:,} jobs, got {len(found):,}"))
    if wrong:
        raise UserError(in_jobs(wrong, count))
    if multirun and not any(job.values for job in found):
        hint = "Write for example seed=0,1,2 or optimizer.lr=1e-5,3e-5."
        raise UserError(Problem("-m", "needs a key with several values", "command line", hint))
    return _distinct(found)


def in_folds(job: Job) -> list[Job]:
    """A job for each fold if `dataset.folds` is set and `dataset.fold` is not; else only the job."""
    dataset = job.config.dataset
    if dataset.folds is None or dataset.fold is not None:
        return [job]
    parts = [dataset.model_copy(update={"fold": fold}) for fold in range(dataset.folds)]
    return [
        replace(
            job,
            values=job.values | {"dataset.fold": part.fold},
            config=job.config.model_copy(update={"dataset": part}),
        )
        for part in parts
    ]


def axes_of(command: str, arguments: list[str], where: str) -> list[Axis]:
    """The axis of each override.

    Raises:
        UserError: for an override that looks like a sweep and is invalid.
    """
    axes, problems = [], []
    for word in arguments:
        key, equals, value = word.partition("=")
        name = key.lstrip("+")
        plain = not equals or key.startswith("~") or (len(overrides.split(value)) == 1 and not CALL.fullmatch(value))
        try:
            texts = [value] if plain else _values(command, key, value, where)
        except UserError as error:
            problems += error.problems
            continue
        if not plain and WHOLE.fullmatch(name):
            problems.append(Problem(name, "applies to the whole sweep, so it takes one value", where))
        axes.append(Axis(name, [word] if plain else [f"{key}={text}" for text in texts], not plain))
    if (size := prod(len(axis.words) for axis in axes)) > MAX_JOBS:
        problems.append(Problem("-m", f"must give at most {MAX_JOBS:,} jobs, got {size:,}", where))
    if problems:
        raise UserError(problems)
    return axes


def _values(command: str, key: str, value: str, where: str) -> list[str]:
    """The values of `a,b`, `choice(a,b)`, `range(3)`, `glob(bert_*)`, each as it is typed.

    Hydra evaluates the functions. Lists are split here, because its grammar refuses most scripts and signs. A pattern
    of recipes only matches recipes of the command.
    """
    if len(parts := overrides.split(value)) > 1:
        return [text for part in parts for text in _values(command, key, part, where)]
    if not (call := CALL.fullmatch(value)):
        return [value]
    name, inside = call.groups()
    if name == "choice":
        return _values(command, key, inside, where)
    if name in ("interval", "log"):
        hint = f"Write search=tpe, or list values: {key}=1e-5,3e-5, {key}=range(START,STOP,STEP)."
        raise UserError(Problem(f"{key}={value}", "is a range, which only a search can draw from", where, hint))
    try:
        with loader() as hydra:
            (override,) = OverridesParser.create(hydra).parse_overrides([f"{key}={value}"])
            values = list(islice(override.sweep_iterator(), MAX_JOBS + 1))
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(Problem(f"{key}={value}", f"is not a valid sweep: {why}", where)) from error
    if name == "glob" and key == "+recipe":
        values = [recipe for recipe in values if compose(command, [f"+recipe={recipe}"]).tree["command"] == command]
    if not values:
        raise UserError(Problem(f"{key}={value}", "matches no value", where))
    return [_text(element) for element in values]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(float(f"{value:.12g}"))  # range(0.1,0.5,0.1) gives 0.30000000000000004
    return overrides.quote(value) if isinstance(value, str) else Transformer.str(value)


def _combinations(axes: list[Axis]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each combination: the values of the swept keys, and the overrides."""
    for chosen in product(*(axis.words for axis in axes)):
        swept = [(axis.key, word) for axis, word in zip(axes, chosen, strict=True) if axis.swept]
        yield {key: overrides.parse([word])[0].value() for key, word in swept}, list(chosen)


def from_sweeper(composed: Composed) -> list[str]:
    """The overrides of a recipe's own sweep, without keys that the command line sets."""
    for key in composed.sweeper:
        if str(key).startswith(("+", "~")) or key == "recipe":
            raise UserError(Problem(f"{SWEPT}.{key}", "is not a key that can be swept"))
    typed = composed.given | composed.chosen
    return [
        f"{key}={','.join(map(format_value, values)) if isinstance(values, list) else format_value(values)}"
        for key, values in composed.sweeper.items()
        if key not in typed
    ]


def _distinct(found: list[Job]) -> list[Job]:
    """One job for each different config. Keys of the whole sweep must be the same in all jobs."""
    first = found[0].config
    problems = [
        Problem(key, "must be the same in all recipes of a sweep", hint=f"Write {key}=VALUE on the command line.")
        for key, same in (
            ("run.dir", all(job.config.run == first.run for job in found)),
            ("sweep", all(job.config.sweep == first.sweep for job in found)),
        )
        if not same
    ]
    if problems:
        raise UserError(problems)
    distinct: dict[str, Job] = {}
    for job in found:
        key = job.config.model_dump_json()
        distinct[key] = replace(distinct[key], duplicates=distinct[key].duplicates + 1) if key in distinct else job
    return list(distinct.values())


def _space(command: str, arguments: list[str], composed: Composed, grid: bool) -> Space:
    """The search space. Each dimension is checked at its ends before the first trial."""
    given: dict[str, tuple[str, Dimension, bool]] = {}
    plain: list[str] = []
    problems: list[Problem] = []
    for word, typed in [
        *((word, True) for word in arguments),
        *((word, False) for word in from_sweeper(composed)),
    ]:
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
        problems.append(Problem("search", "needs a key with several values or a range", hint=HINT))
    if grid and (size := prod(len(dimension.choices) for dimension in dimensions)) > MAX_JOBS:
        problems.append(Problem("search", f"must have at most {MAX_JOBS:,} trials in a grid, got {size:,}"))
    if problems:
        raise UserError(problems)

    def make(values: dict[str, str]) -> Job:
        chosen = [(typed, f"{key}={values[dimension.key]}") for key, dimension, typed in given.values()]
        own = [word for typed, word in chosen if not typed]
        parsed = {key: overrides.parse([f"{key}={text}"])[0].value() for key, text in values.items()}
        config = checked(command, compose(command, plain + [word for typed, word in chosen if typed], own))
        return Job(parsed, config, recipe=shorten(command, plain + [word for _, word in chosen]))

    return Space(dimensions, make, _first(dimensions, make))


def _dimension(command: str, word: str, where: str, grid: bool) -> Dimension | None:
    """The dimension of an override; None if it has one value."""
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    if call := RANGE.fullmatch(value.replace(" ", "")):
        kind, low, high = call.groups()
        dimension = _range(name, kind, low, high, where)
        if grid:
            hint = f"Write {key}=A,B, or search=random, or search=tpe."
            raise UserError(Problem(name, f"must be a list of values in a grid, got {value}", where, hint))
    else:
        (axis,) = axes_of(command, [word], where)
        if not axis.swept:
            return None
        dimension = _choice(name, [text.removeprefix(f"{key}=") for text in axis.words], value, grid)
    if OF_THE_SEARCH.fullmatch(name):
        raise UserError(Problem(name, "applies to the whole search, so it takes one value", where))
    return dimension


def _range(name: str, kind: str, low: str, high: str, where: str) -> Dimension:
    try:
        dimension = Dimension(name, low=float(low), high=float(high), log=kind == "log")
    except ValueError:
        raise UserError(Problem(name, f"must be two numbers, got {kind}({low},{high})", where)) from None
    if not dimension.low < dimension.high:
        raise UserError(Problem(name, f"must have the lower number first, got {kind}({low},{high})", where))
    if dimension.log and dimension.low <= 0:
        hint = f"Write {name}=interval({low},{high})."
        raise UserError(Problem(name, f"must be above 0 for a logarithm, got {low}", where, hint))
    return dimension


def _choice(name: str, texts: list[str], value: str, grid: bool) -> Dimension:
    """A list of choices. Integers of `range` keep their order, which samplers use."""
    texts = list(dict.fromkeys(texts))
    if value.startswith("range(") and not grid and len(texts) > 2 and all(text.lstrip("-").isdigit() for text in texts):
        numbers = sorted(map(int, texts))
        return Dimension(name, low=numbers[0], high=numbers[-1], step=numbers[1] - numbers[0])
    return Dimension(name, choices=tuple(texts))


def _first(dimensions: list[Dimension], make: Make) -> Job:
    """The job of the first values. Every other sample of every dimension is checked, too.

    Raises:
        UserError: with all problems, and if the trials cannot be compared.
    """
    start = {dimension.key: dimension.samples[0] for dimension in dimensions}
    points = [start | {dimension.key: word} for dimension in dimensions for word in dimension.samples[1:]]
    wrong: dict[Problem, list[str]] = {}
    found: list[Job] = []
    for point in [start, *points]:
        changed = {key: word for key, word in point.items() if word != start[key]}
        with collect_problems(wrong, as_overrides(changed or start)):
            found.append(make(point))
    if wrong:
        raise UserError(in_jobs(wrong, 1 + len(points)))
    kinds = {(job.config.task.name, job.config.metric_for_best) for job in found}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{metric} of {task}" for task, metric in kinds))
        raise UserError(Problem("search", f"trials cannot be compared: {names}", hint="Set trainer.metric_for_best."))
    return found[0]
