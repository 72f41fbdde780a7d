"""Every dropout of an architecture by one number."""

from typing import Any

from transformers import PreTrainedConfig

from llmft.schema.problem import Problem, UserError


def dropouts(config: PreTrainedConfig, share: float) -> dict[str, Any]:
    """The sizes of an architecture that are shares of dropped values, each with `share`.

    They are told by their names: `hidden_dropout_prob`, `attention_dropout`, `resid_pdrop`, `summary_first_dropout`.
    Some are unset and mean another one, such as BERT's `classifier_dropout`.

    Raises:
        UserError: for an architecture that drops nothing.
    """
    names = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or "pdrop" in name) and not isinstance(value, bool | str | dict | list)
    ]
    if not names:
        raise UserError(Problem("model.dropout", f"{config.model_type} has no dropout", hint="Leave it out."))
    return dict.fromkeys(names, share)
