"""The section of `llmft serve`."""

from typing import Annotated

from pydantic import Field, StringConstraints

from llmft.schema.section import Section

ModelName = Annotated[str, StringConstraints(pattern=r"^[^\W_](?:[\w.-]{0,62}\w)?$")]


class ServeConfig(Section):
    """What `llmft serve` answers, to whom, and how much of it at once."""

    models: dict[ModelName, str] = Field(default_factory=dict)
    """Several models: `{NAME: RUN, ...}`, each a run, an export, or a folder of runs, which means its newest finished
    run. Then there is no RUN after `llmft serve`. They answer at `/predict/NAME`."""

    host: str = "127.0.0.1"
    """The address to listen on. Beyond `127.0.0.1`, `::1`, and `localhost` a key is required: see `key_file`."""

    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on. 0: a free one, which is printed."""

    key_file: str | None = None
    """A file with the key that clients must send, as `Authorization: Bearer KEY`. Unset: the environment variable
    LLMFT_API_KEY. The key itself never stands in a config or on the command line."""

    workers: int | None = Field(default=None, ge=1)
    """Threads that run an export, each on one core. Unset: one a core. Torch has one thread of its own, which uses all
    cores."""

    batch_size: int = Field(default=32, ge=1)
    """The most rows that wait together to be sorted by length. At most 8 of them are computed at once. Of an export
    they are of similar length, since more of them, or longer ones among them, are mostly padding."""

    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long a row waits for others before it is computed. 0: it waits only while all workers are busy."""

    queue: int = Field(default=256, ge=1)
    """The most rows that are admitted and not yet answered, those of explanations among them. Beyond it the answer
    is 429, with Retry-After."""

    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds until a request without an answer gets 504, and what is left of its work is dropped."""

    read_timeout_s: float = Field(default=10.0, gt=0, le=600)
    """Seconds in which a client must have sent a whole request. Then the connection is closed."""

    max_body: int | None = Field(default=None, ge=1)
    """The largest body of a request in bytes; larger ones get 413. Unset: 1 MiB, and 14 MiB for tasks on images."""

    max_rows: int = Field(default=32, ge=1)
    """The most rows of a request."""

    max_text: int = Field(default=20_000, ge=1)
    """The most characters of a text in a row."""

    max_pixels: int = Field(default=25_000_000, ge=1)
    """The most pixels of an image, by its header. It is checked before anything is decoded."""

    streams: int = Field(default=2, ge=1)
    """How many texts a model writes at once for `/v1`."""

    feedback: str | None = None
    """A file to which `POST /feedback` appends a JSON line. Unset: feedback is counted and not kept."""
