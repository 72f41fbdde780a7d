"""Rules of many runs: folds, searches and ensembles."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.problem import Problem


def _folds_can_be_made(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    if dataset.folds is None:
        key, what = "dataset.fold", "names a part, and dataset.folds does not say of how many"
        return [Problem(key, what, origin(key))] if dataset.fold is not None else []
    problems = []
    if dataset.fold is not None and dataset.fold >= dataset.folds:
        what = f"there is no fold {dataset.fold}; they are 0 to {dataset.folds - 1}"
        problems.append(Problem("dataset.fold", what, origin("dataset.fold")))
    if dataset.fold is None and config.command != "finetune":
        what = f"{config.command} works on the rows of one fold"
        problems.append(Problem("dataset.fold", what, origin("dataset.folds"), "Say which: dataset.fold=0."))
    if dataset.test:
        hint = "Write dataset.test=null, or score the runs on it afterwards: llmft eval FOLDER ensemble=mean."
        problems.append(
            Problem("dataset.test", "with folds, the held-out rows are the test", origin("dataset.test"), hint)
        )
    if dataset.streaming:
        what = "folds are taken from rows in memory"
        problems.append(Problem("dataset.streaming", what, origin("dataset.streaming"), "Leave out one of the two."))
    return problems


def _groups_are_in_memory(config: Config, origin: Origin) -> list[Problem]:
    key = "dataset.columns.group"
    if config.dataset.streaming and "group" in config.dataset.columns:
        what = "no split is made of rows that are streamed, so none can part a group"
        return [Problem(key, what, origin(key), "Leave it out.")]
    return []


def _a_search_has_scores_to_go_by(config: Config, origin: Origin) -> list[Problem]:
    dataset, search = config.dataset, config.search
    if search is None:
        return []
    problems = []
    if config.command != "finetune":
        problems.append(Problem("search", "is for llmft finetune", origin("search"), "Leave it out."))
    if not dataset.validation and not dataset.split.validation and dataset.format != "synthetic":
        what = "trials are compared by validation rows, and there are none"
        problems.append(Problem("dataset.split.validation", what, origin("dataset.split.validation")))
    if dataset.folds and dataset.fold is None:
        hint = "Search on one fold, dataset.fold=0, or on a split, and try the winner on all folds."
        problems.append(Problem("dataset.folds", "a trial of a search is one run", origin("dataset.folds"), hint))
    if search.pruner != "none" and config.hardware.processes > 1:
        what = "a trial of several processes can't be given up early"
        problems.append(Problem("search.pruner", what, origin("search.pruner"), "Write search.pruner=none."))
    return problems


def _an_ensemble_is_of_runs(config: Config, origin: Origin) -> list[Problem]:
    ensemble = config.ensemble
    if ensemble is None:
        return []
    if config.command != "eval":
        return [Problem("ensemble", "is for llmft eval", origin("ensemble"), "Leave it out.")]
    if len(ensemble.runs) < 2:
        return [Problem("ensemble", "wants two runs or more", origin("ensemble"), "llmft eval RUN RUN ensemble=mean")]
    key, weights = "ensemble.weights", ensemble.weights
    if weights is not None and len(weights) != len(ensemble.runs):
        return [Problem(key, f"{len(weights)} weights for {len(ensemble.runs)} runs", origin(key))]
    if weights is not None and min(weights) < 0:
        return [Problem(key, f"{min(weights):g} is not at least 0", origin(key))]
    if weights is not None and not sum(weights):
        return [Problem(key, "are all 0", origin(key))]
    return []


RULES_OF_MANY = (
    _folds_can_be_made,
    _groups_are_in_memory,
    _a_search_has_scores_to_go_by,
    _an_ensemble_is_of_runs,
)
