"""`llmft finetune ... show=3`: a look at the encoded rows. No weights are loaded, and no run folder is made."""

from llmft.commands.label import with_label
from llmft.commands.prepare import prepare
from llmft.commands.session import quiet
from llmft.reporting.examples import show
from llmft.schema.config import Config


def run(config: Config) -> None:
    """Print `config.show` training rows as the model is to see them.

    Raises:
        UserError: with what is wrong with the data.
    """
    quiet()
    config, notes = with_label(config)
    prepared = prepare(config)
    notes = [*notes, *prepared.data.notes, *prepared.task.notes()]
    show(prepared.task, prepared.splits["train"], config.show or 0, notes)
