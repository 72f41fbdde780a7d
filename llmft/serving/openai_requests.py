"""What OpenAI's routes are asked: the fields of a request, checked, and what they mean here."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmft.schema.inference import GenerationConfig
from llmft.serving.http import Refused
from llmft.tasks.chat.conversations import Conversation, Unfit, parse

IGNORED = {
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
"""Fields that do not change an answer."""
NEUTRAL: dict[str, Any] = {
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "suffix": "",
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 0,
}
"""Fields that would change an answer, and the only value that is accepted, which does not."""
TOOLS = (
    "Calls of tools are not read out of an answer. Supported are messages with tool_calls, and those of the role tool, "
    "which the chat template writes. POST /predict takes the column tools, and gives a call as text."
)
HINTS = {
    "tools": TOOLS,
    "functions": TOOLS,
    "tool_choice": TOOLS,
    "response_format": "Ask for JSON in a message, and check the answer.",
    "n": "Send the request again, with another seed.",
    "best_of": "Send the request again, with another seed.",
}
"""What can be done instead."""
COLD = 1e-3  # logits divided by less could overflow
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "reasoning_content"}
EMPTY_KEYS = {"annotations", "audio", "refusal"}
"""Keys of a message that clients send back with null or nothing in them."""
WITHOUT: tuple[Any, ...] = (None, [], {}, "")


def wrong(field: str | None, what: str, code: str | None = None, status: int = 400) -> Refused:
    """A refusal that names the field, with OpenAI's code for it."""
    return Refused(status, what, [{"path": field or "", "detail": what, "code": code or ""}])


class Asked(BaseModel):
    """The fields that both routes have."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None

    @classmethod
    def read(cls, body: Any) -> Self:
        """The request that a body is.

        Raises:
            Refused: with 400 for the first field that is unknown, wrong, or would change the answer and is not
                supported.
        """
        if not isinstance(body, dict):
            raise wrong(None, "the body must be a JSON object")
        given = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
        for name in sorted(given.keys() & NEUTRAL.keys()):
            neutral, value = NEUTRAL[name], given.pop(name)
            if value != neutral or isinstance(value, bool) != isinstance(neutral, bool):
                what = f"{name} must be {json.dumps(neutral)} or left out: it is not supported"
                raise wrong(name, " ".join([f"{what}.", HINTS.get(name, "")]).strip())
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            raise _refusal(error, given) from None
        for name in found.stream_options or {}:
            if name not in ("include_usage", "include_obfuscation"):
                raise wrong("stream_options", f"stream_options has an unknown key, {name[:100]!r}")
        if found.stream_options is not None and not found.stream:
            raise wrong("stream_options", "stream_options must be left out without stream=true")
        if "" in found.stops:
            raise wrong("stop", "stop must not hold an empty text")
        return found

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer, if the request says so."""
        return self.max_tokens

    def options(self, own: GenerationConfig) -> GenerationConfig:
        """The section `generation` of the server with what the request changes.

        A temperature of 0 means the most probable token, and so does one below COLD. Any other temperature, or top_p,
        draws tokens.
        """
        changes: dict[str, Any] = {} if self.limit is None else {"max_new_tokens": self.limit}
        if self.temperature is not None and self.temperature < COLD:
            changes |= {"sample": False}
        elif self.temperature is not None or self.top_p is not None:
            changes |= {"sample": True, "beams": 1}
            changes |= {} if self.temperature is None else {"temperature": float(self.temperature)}
            changes |= {} if self.top_p is None else {"top_p": self.top_p}
        return own.model_copy(update=changes)


class ChatRequest(Asked):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer; `max_tokens` is the older name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def conversation(self, longest: int) -> tuple[Conversation, bool]:
        """The messages, and whether the system prompt of the training rows belongs before them.

        An empty first message of the system means that there is no system prompt, not even that of training.

        Args:
            longest: the most characters of a text.

        Raises:
            Refused: for messages that are no conversation, or end with an answer.
        """
        messages = [self._message(place, given) for place, given in enumerate(self.messages)]
        without = messages[0]["role"] == "system" and messages[0].get("content") in WITHOUT
        try:
            talk = Conversation(parse(json.dumps(messages[without:])))
        except Unfit as error:
            raise wrong("messages", error.what) from None
        except RecursionError:
            raise wrong("messages", "messages has too many levels") from None
        for place, message in enumerate(talk.messages):
            if len(message["content"]) > longest:
                raise wrong("messages", f"messages.{place}.content must have at most {longest:,} characters")
        if talk.messages[-1]["role"] == "assistant":
            raise wrong("messages", "the last message must not be of the assistant: it would be answered already")
        return talk, not without

    def _message(self, place: int, given: dict[str, Any]) -> dict[str, Any]:
        """A message with the keys that chat templates know."""
        role = given.get("role")
        if role not in ROLES:
            raise wrong("messages", f"messages.{place}.role must be one of {', '.join(ROLES)}")
        for key, value in given.items():
            if key not in MESSAGE_KEYS and not (key in EMPTY_KEYS and value in WITHOUT):
                raise wrong("messages", f"messages.{place} has a key that is not supported: {key[:100]!r}")
        kept = {key: value for key, value in given.items() if key in MESSAGE_KEYS}
        return kept | {"role": "system" if role == "developer" else role}


class CompletionRequest(Asked):
    """The body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]

    def text(self, longest: int) -> str:
        """The text to continue.

        Raises:
            Refused: if it has more than `longest` characters.
        """
        text = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        if len(text) > longest:
            raise wrong("prompt", f"prompt must have at most {longest:,} characters")
        return text


def _refusal(error: ValidationError, given: dict[str, Any]) -> Refused:
    """The first problem of a body, without its values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(found["loc"][0])
    if found["type"] == "extra_forbidden":
        return wrong(field[:100], f"{field[:100]!r} is not supported; leave it out")
    if found["type"] == "missing":
        return wrong(field, f"{field} is missing")
    kinds = {"prompt": "a text: one prompt a request", "stop": "a text, or a list of at most 4 texts"}
    what = f"must be {kinds[field]}" if field in kinds else found["msg"].replace("Input should", "must").lower()
    return wrong(field, f"{'.'.join(map(str, found['loc'][:1]))} {what}")
