"""The files that sentence-transformers keeps beside a model: how vectors are made of tokens, and prompts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError

POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last", "max": "max"}
"""sentence-transformers' name of a pooling -> that of `task.pooling`."""
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""Keys of 1_Pooling/config.json before version 5 -> the name since then."""
HINT = "Write task.pooling=mean to take the encoder alone."


@dataclass(frozen=True)
class SentenceModel:
    """How a folder makes a vector of a text."""

    pooling: str = "mean"
    normalize: bool = True
    query: str = ""
    passage: str = ""


def read(model: ModelConfig, ignore_modules: bool = False) -> SentenceModel:
    """What the folder of `model.path` says; for a model without these files, the defaults.

    Args:
        ignore_modules: whether pooling is given by `task.pooling`, so that other modules do not matter.

    Raises:
        UserError: for a module that llmft does not have, such as a dense layer after the pooling.
    """
    if model.path is None or model.first_weights != "pretrained":
        return SentenceModel()
    modules = _json(model, "modules.json")
    if not isinstance(modules, list):
        return SentenceModel()
    kinds = {module["type"].rpartition(".")[2]: module.get("path", "") for module in modules}
    if (
        strange := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    ) and not ignore_modules:
        what = f"{model.path} has a module {strange[0]} after its encoder, which llmft does not have"
        raise UserError(Problem("model.path", what, hint=HINT))
    pooling = _json(model, f"{kinds.get('Pooling', '1_Pooling')}/config.json")
    name = pooling.get("pooling_mode") or [new for old, new in FLAGS.items() if pooling.get(old)] or "mean"
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    if not ignore_modules and (not isinstance(name, str) or name not in POOLINGS):
        what = f"{model.path} pools by {name}, and llmft by {', '.join(POOLINGS)}"
        raise UserError(Problem("model.path", what, hint=HINT))
    settings = _json(model, "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    usual = prompts.get(settings.get("default_prompt_name"), "")
    passage = next((prompts[key] for key in ("passage", "document") if prompts.get(key)), usual)
    return SentenceModel(POOLINGS.get(str(name), "mean"), "Normalize" in kinds, prompts.get("query") or usual, passage)


def _json(model: ModelConfig, name: str) -> Any:
    """The content of a file beside the weights; empty if there is none."""
    from llmft.models.model_files import locate  # imports torch, and a service reads what was saved

    place = locate(str(model.path), "model.path", model.hub, model.revision)
    try:
        return json.loads(place.file(name, "model.path", model.revision).read_text(encoding="utf-8"))
    except (OSError, UserError):  # a plain model of transformers has no such file
        return {}
    except ValueError as error:
        raise UserError(Problem("model.path", f"{name} of {model.path} is not JSON: {error}")) from error


def write(folder: Path, how: SentenceModel, max_length: int) -> None:
    """Let `SentenceTransformer(folder)` make the same vectors. `folder` has the config of the model already."""
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    width = next((size[key] for key in ("hidden_size", "d_model", "dim", "n_embd") if key in size), None)
    names = {ours: theirs for theirs, ours in POOLINGS.items()}
    base = "sentence_transformers.models"  # known to all versions since 2.0
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{base}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{base}.Pooling"},
    ]
    if how.normalize:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{base}.Normalize"})
        (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {old: new == names[how.pooling] for old, new in FLAGS.items()}
    files: dict[str, Any] = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "__version__": {},
            "prompts": {"query": how.query, "document": how.passage},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {"word_embedding_dimension": width, **flags},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
