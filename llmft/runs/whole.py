"""A run folder that is there when all is in it, or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from llmft.runs.folder import Run, as_recipe, place
from llmft.runs.signals import Interrupting
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError


@contextmanager
def whole(config: Config) -> Iterator[Run]:
    """Fill a hidden folder beside the run's own; at the end it gets its name. After an error nothing is left.

    Raises:
        UserError: as `Run.create` does.
    """
    Run.check(config)
    folder = place(config)
    run = Run(folder.with_name(f".{folder.name}-{secrets.token_hex(4)}"))
    try:
        with Interrupting():
            try:
                run.folder.mkdir(parents=True)
            except OSError as error:
                raise UserError(Problem("run.dir", f"{folder}: {error.strerror}")) from error
            run.write_text("config.yaml", as_recipe(config))
            yield run
            try:
                run.folder.rename(folder)
            except OSError as error:  # somebody has put something there meanwhile
                raise UserError(Problem("run.dir", f"{folder}: {error.strerror}")) from error
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    run.folder = folder
