"""`llmft finetune` and `llmft pretrain`: train a model on data, score it, and leave a run folder."""

from collections.abc import Sequence

from transformers import TrainerCallback

from llmft.commands.launch import launch
from llmft.commands.prepare import Prepared
from llmft.commands.session import Session
from llmft.runs import checkpoints
from llmft.runs.folder import Run
from llmft.schema.config import Config


def run(config: Config, prepared: Prepared | None = None, callbacks: Sequence[TrainerCallback] = ()) -> Run:
    """Train, evaluate and record.

    Args:
        prepared: the data, where a sweep has prepared them for several runs.
        callbacks: who else hears of training, such as a search; of a run in one process.

    Raises:
        UserError: if the data or the model are not as the configuration says; nothing is written then.
    """
    session = Session(config, prepared, callbacks)
    session.check()
    if session.earlier and session.is_done:
        if not config.trainer.keep_finished:
            checkpoints.remove(session.earlier.folder)
        print(f"{session.earlier.folder} is finished: its scores are in metrics.json, and report.html shows them")
        return session.earlier
    session.prepare()
    session.build()
    with session.record():
        hardware = session.hardware
        if hardware.processes == 1:
            session.work()
        elif hardware.nodes == 1:  # on several, they are started where they are
            launch(session.run, hardware.processes, hardware.threads)
    return session.run
