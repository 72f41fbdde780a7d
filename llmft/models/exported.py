"""A model that `llmft export` wrote, used like the one that it came from."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput

from llmft.data.committed import fault
from llmft.models.runtimes import Session, require, session
from llmft.schema.problem import Problem, UserError

FACTS = "export.json"


class Exported(torch.nn.Module):
    """A program behind the interface of a model: the same named batch in, logits and loss out."""

    def __init__(self, facts: dict[str, Any], config: PreTrainedConfig, program: Session) -> None:
        """`facts` is export.json, of which `inputs` and `parameters` are used here."""
        super().__init__()
        self.config = config
        self.program = program
        self.kinds = {name: getattr(torch, given["dtype"]) for name, given in facts["inputs"].items()}
        self.takes = {*self.kinds, "labels"}
        self.count = int(facts["parameters"])
        self.origin = f"exported to {facts['format']}, {facts['precision']}"
        # Programs run on the CPU. Batches go where the parameters of a model are, so it has one, of no size.
        self.place = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, labels: torch.Tensor | None = None, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Logits (B, num_labels), and with `labels` their mean loss, as transformers computes it."""
        logits = self.program({name: inputs[name].to(kind) for name, kind in self.kinds.items()}).float()
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def num_parameters(self) -> int:
        """Parameters of the model that it came from."""
        return self.count


def is_export(folder: Path) -> bool:
    """Whether `llmft export` wrote the folder."""
    return (folder / FACTS).is_file()


def verified(folder: Path, trust_remote_code: bool = False) -> dict[str, Any]:
    """What export.json says, once every file of the model hashes to what was written.

    Raises:
        UserError: for a changed or missing file, a missing runtime, and a pt2 file that nobody has vouched for.
    """
    if why := fault(folder / "model"):
        raise UserError(Problem(str(folder / "model"), why, "command line", "Export the run again."))
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        require(facts["format"], running=True)
    except (ValueError, KeyError) as error:
        raise UserError(Problem(str(folder / FACTS), f"cannot be read: {error}", "command line")) from error
    if facts["format"] == "pt2" and not trust_remote_code:
        what = "is a pt2 file, and torch.export.load runs code that such a file may hold"
        hint = "If you or somebody you trust made it, write model.trust_remote_code=true."
        raise UserError(Problem(str(folder), what, "command line", hint))
    return facts


def load_exported(folder: Path, facts: dict[str, Any]) -> Exported:
    """The program of an export folder, ready to answer.

    Raises:
        UserError: if the runtime does not take it, as an older one may not.
    """
    try:
        config = AutoConfig.from_pretrained(folder / "model", trust_remote_code=False)
        return Exported(facts, config, session(facts["format"], folder / "model"))
    except Exception as error:  # each runtime has errors of its own
        what = f"cannot be loaded: {str(error).splitlines()[0]}"
        raise UserError(Problem(str(folder / "model"), what, "command line")) from error
