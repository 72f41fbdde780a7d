"""Rules of what one command is asked, and of where it may write."""

from pathlib import Path, PurePath

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.inference import PRECISIONS, ChatConfig, PredictConfig
from llmft.schema.problem import Problem
from llmft.tasks.targets.config import TargetConfig


def _folders_stay_inside(config: Config, origin: Origin) -> list[Problem]:
    """A recipe may not write where it likes; the person at the command line may."""
    folder = config.run.dir
    if folder is None:
        return []
    if "\0" in folder:
        return [Problem("run.dir", "holds a NUL character", origin("run.dir"))]
    path = PurePath(folder)
    if not origin.typed("run.dir") and (path.is_absolute() or ".." in path.parts):
        return [
            Problem(
                "run.dir",
                f"{folder!r} leaves the working directory",
                origin("run.dir"),
                "Give such a folder on the command line.",
            )
        ]
    outside = not Path(folder).resolve().is_relative_to(Path.cwd().resolve())
    if not origin.typed("run.dir") and outside:
        return [Problem("run.dir", f"{folder!r} leads out of the working directory by a link", origin("run.dir"))]
    return []


def _chat_is_for_chat(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "chat" and config.chat != ChatConfig():
        return [Problem("chat.system", "is for llmft chat", origin("chat.system"), "Leave it out.")]
    return []


def _predict_is_asked_one_thing(config: Config, origin: Origin) -> list[Problem]:
    predict = config.predict
    if config.command != "predict" and predict != PredictConfig():
        key = f"predict.{min(predict.model_fields_set)}"
        return [Problem(key, "is for llmft predict", origin(key), "Leave it out.")]
    problems = []
    given = [f"predict.{key}" for key in ("input", "text", "row") if getattr(predict, key) is not None]
    if len(given) > 1:
        what = f"{' and '.join(given)} are given; one of them is answered"
        problems.append(Problem(given[1], what, origin(given[1]), "Leave out the others."))
    if predict.text_pair is not None and predict.text is None:
        key = "predict.text_pair"
        problems.append(Problem(key, "is the second of two texts", origin(key), "Give predict.text too."))
    if predict.input_format in ("parquet", "squad") and predict.input in (None, "-"):
        key, what = "predict.input_format", f"{predict.input_format} is read from a file"
        problems.append(Problem(key, what, origin(key), "Write predict.input=FILE."))
    if taken := [name for name in predict.keep if name in config.task.answered]:
        what = f"{taken[0]} is a key of the answer itself"
        problems.append(Problem("predict.keep", what, origin("predict.keep"), "Rename the column."))
    return problems


def _export_can_be_written(config: Config, origin: Origin) -> list[Problem]:
    export = config.export
    if config.command != "export" or export.precision in PRECISIONS.get(export.format, ()):
        return []
    if export.format == "gguf":
        what = "transformers reads GGUF files and writes none"
        command = f"`python convert_hf_to_gguf.py {config.run.source}/model --outfile model.gguf`"
        hint = f"llama.cpp converts causal language models: {command}."
        return [Problem("export.format", what, origin("export.format"), hint)]
    pairs = "; ".join(f"{name} in {', '.join(found)}" for name, found in PRECISIONS.items())
    what = f"{export.format} is not written in {export.precision}"
    return [Problem("export.precision", what, origin("export.precision"), f"There are {pairs}.")]


def _a_search_has_scores_to_go_by(config: Config, origin: Origin) -> list[Problem]:
    dataset, search = config.dataset, config.search
    if search is None:
        return []
    problems = []
    if not config.trains:
        problems.append(Problem("search", "is for commands that train", origin("search"), "Leave it out."))
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
    if not isinstance(config.task, TargetConfig):
        what = f"is of labels or numbers, and {config.task.name} answers neither"
        return [Problem("ensemble", what, origin("ensemble"), "Leave it out.")]
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


def _export_has_one_pass(config: Config, origin: Origin) -> list[Problem]:
    if config.command != "export" or config.task.exports:
        return []
    what = f"{config.task.name} needs more of a model than one row of numbers a row, which is what is exported"
    hint = f"What transformers loads is in {config.run.source}/model."
    return [Problem("task", what, str(config.run.source), hint)]


RULES = (
    _folders_stay_inside,
    _chat_is_for_chat,
    _predict_is_asked_one_thing,
    _export_has_one_pass,
    _export_can_be_written,
    _a_search_has_scores_to_go_by,
    _an_ensemble_is_of_runs,
)
