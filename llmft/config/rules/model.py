"""Rules of the model: its source, its adapter, what of it stays frozen."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.problem import Problem


def _model_has_a_source(config: Config, origin: Origin) -> list[Problem]:
    model = config.model
    if model.path or (model.init != "pretrained" and model.architecture):
        return []
    if model.architecture:
        return [
            Problem(
                "model.init",
                "weights of an architecture alone are random",
                origin("model.init"),
                "Write model.init=random, or give model.path.",
            )
        ]
    return [
        Problem(
            "model.path",
            "no model is named",
            origin("model.path"),
            "Give model.path, or model.architecture with model.init=random.",
        )
    ]


def _code_is_trusted_by_a_person(config: Config, origin: Origin) -> list[Problem]:
    key = "model.trust_remote_code"
    if config.model.trust_remote_code and not origin.typed(key):
        return [
            Problem(key, "runs code, which only the command line may ask for", origin(key), f"Write {key}=true there.")
        ]
    return []


def _adapter_reads_its_keys(config: Config, origin: Origin) -> list[Problem]:
    adapter = config.adapter
    reads = adapter.reads[adapter.name]
    hint = f"It reads {', '.join(reads)}." if reads else "Write adapter=lora or another before it."
    keys = sorted({key for kind in adapter.reads.values() for key in kind} - {*reads})
    return [
        Problem(f"adapter.{key}", f"is not read by adapter={adapter.name}", "command line", hint)
        for key in keys
        if f"adapter.{key}" in origin.given
    ]


def _adapter_has_what_it_needs(config: Config, origin: Origin) -> list[Problem]:
    """Weights that are worth keeping; a smoke run and what goes on with it do without."""
    name, model, problems = config.adapter.name, config.model, []
    if name == "none" or not config.trains:
        return []
    for key in ("freeze", "unfreeze"):
        if getattr(model, key):
            what = f"adapter={name} leaves all weights as they are but its own and those of the head"
            problems.append(Problem(f"model.{key}", what, origin(f"model.{key}"), "Leave out one of the two."))
    if name == "prefix" and not config.task.prefixes:
        what = f"a prefix goes before models that classify, and {config.task.name} writes"
        problems.append(Problem("adapter.name", what, origin("adapter.name"), "Write adapter=lora."))
    tried = config.smoke or config.resume or config.dataset.format == "synthetic"
    if model.init != "pretrained" and not tried:
        what = f"adapter={name} would leave the random weights random"
        hint = "Give pretrained ones by model.path, or write adapter=none."
        problems.append(Problem("model.init", what, origin("model.init"), hint))
    return problems


def _something_is_left_to_unfreeze(config: Config, origin: Origin) -> list[Problem]:
    if config.model.unfreeze and "encoder" in config.model.freeze:
        what = "model.freeze=encoder keeps all layers frozen"
        return [Problem("model.unfreeze", what, origin("model.unfreeze"), "Leave out one of the two.")]
    return []


RULES = (
    _model_has_a_source,
    _code_is_trusted_by_a_person,
    _adapter_reads_its_keys,
    _adapter_has_what_it_needs,
    _something_is_left_to_unfreeze,
)
