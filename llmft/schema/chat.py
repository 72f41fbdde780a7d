"""The section `chat`: how `llmft chat RUN` begins."""

from llmft.schema.section import Section


class ChatConfig(Section):
    """A conversation with a finished run, by `llmft chat RUN`."""

    system: str | None = None
    """The system prompt. Unset: that of the training rows, where all had the same; empty for none."""
