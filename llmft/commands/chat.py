"""`llmft chat RUN`: talk with a finished run, turn after turn. Standard output holds its answers and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llmft import tasks
from llmft.commands.terminal import message, start, tell
from llmft.models.trained import load_trained
from llmft.predictions.continuation import Writer
from llmft.reporting.lines import quiet
from llmft.schema.config import Config
from llmft.schema.inference import GenerationConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.chat.conversations import Conversation, Message, Unfit
from llmft.tasks.optional import Chats
from llmft.training.hardware import detect


def run(config: Config) -> None:
    """Read messages from standard input, a line each, and write the answer to each as its tokens come.

    Raises:
        UserError: if there is no finished model, or one that does not talk.
    """
    quiet()
    hardware = detect(config.hardware)
    task = tasks.build(config.task)
    source = Path(str(config.run.source))
    model, task = load_trained(source, task, hardware.device, config.model.trust_remote_code)
    if (state := task.chat_state() if isinstance(task, Chats) else None) is None:
        what = f"{config.task.name} does not answer in turns"
        if task.head == "AutoModelForCausalLM":
            what = "its tokenizer has no chat template, by which turns are written"
        raise UserError(Problem(str(source), what, "command line", f"Write llmft predict {source}."))
    chat = Chat(Writer.of(model, task, config.model.path is None), config.generation, config.seed)
    wanted = state.system if config.chat.system is None else config.chat.system
    with suppress(Unfit):
        chat.set_system(wanted)
    if chat.system != wanted:
        raise UserError(Problem("chat.system", "the chat template does not write a system prompt"))
    start(chat, str(source))


@dataclass
class Chat:
    """A conversation with a model in this process, which goes on."""

    writer: Writer
    options: GenerationConfig = field(default_factory=GenerationConfig)
    seed: int = 0
    system: str = ""
    messages: list[Message] = field(default_factory=list)

    def set_system(self, text: str) -> None:
        """Set the system prompt; an empty one is none.

        Raises:
            Unfit: where the chat template does not write it.
        """
        if text.strip():
            self.writer.reply_tokens(Conversation([message("system", text), message("user", "a")]))
        self.system = text.strip() and text

    def ask(self, text: str, write: Callable[[str], None]) -> None:
        """Answer a message; what is written so far goes to `write`, part by part.

        The oldest turns that have no room are left out of what the model reads, for good. An answer that is stopped by
        Ctrl-C stays as far as it came.

        Raises:
            Unfit: for a message that cannot be answered; it is forgotten.
        """
        self.messages.append(message("user", text))
        longest, room = self.options.max_new_tokens, self.writer.room
        try:
            if self.writer.chat is not None:
                self.writer.chat.template.check_control(self.messages[-1], "the message")
            ids = self._prompt()
            # Half of the room at most is kept for the answer, so that long answers do not cost all memory.
            left, gone = min(longest, room // 2), 0
            while len(ids) + left > room and len(self.messages) > 2:
                del self.messages[:2]
                ids, gone = self._prompt(), gone + 1
            if len(ids) >= room:
                raise Unfit(f"has {len(ids):,} tokens with what stands around it, and the model reads {room:,}")
        except Unfit:
            self.messages.pop()
            raise
        if gone:
            turns = "the oldest turn is" if gone == 1 else f"the {gone} oldest turns are"
            tell(f"({turns} left out: the model reads {room:,} tokens)")
        answer = self.writer.reply(write)
        step = min(longest, room - len(ids))
        try:
            self.writer.write(ids, answer, self.options.model_copy(update={"max_new_tokens": step}), self.seed)
        except KeyboardInterrupt:
            answer.end()
            tell(" (stopped)")
        else:
            if not answer.ended:
                tell(f" (cut after {step:,} tokens; generation.max_new_tokens says how many an answer may have)")
        write("\n")
        self.messages.append(message("assistant", answer.text))

    def _prompt(self) -> list[int]:
        """The tokens of the conversation."""
        system = [message("system", self.system)] if self.system else []
        return self.writer.reply_tokens(Conversation([*system, *self.messages]))
