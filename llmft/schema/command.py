"""The commands, and which of them work from a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command of `llmft`."""

    what: str
    """What it does, in a line of the help."""
    keys: tuple[str, ...] = ()
    """For a command that works from a run: the keys that may differ from it; training decided the others."""

    @property
    def of_a_run(self) -> bool:
        """Whether the word after it is a run's folder."""
        return bool(self.keys)


COMMANDS = {
    "finetune": Command("train a model on data, score it, and leave a run folder"),
    "eval": Command(
        "score a finished run, on its own data or on other data",
        keys=(
            "dataset",
            "ensemble",
            "hardware",
            "name",
            "run.dir",
            "trainer.eval_batch_size",
            "model.trust_remote_code",
        ),
    ),
}
