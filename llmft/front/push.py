"""`llmft push RUN to=OWNER/NAME`: upload the model of a finished run, with its model card, to a hub."""

from pathlib import Path

from llmft.runs.index import find_run
from llmft.schema.problem import Failure, Problem, UserError

HINT = "Write llmft push RUN to=OWNER/NAME, and private=false to make it public."


def run(words: list[str]) -> None:
    """Upload RUN/model, and RUN/README.md as its card, to a repository, which is created if it does not exist.

    `hf auth login` or HF_TOKEN decides who uploads, HF_ENDPOINT to which hub. Neither is stored.

    Raises:
        UserError: for wrong arguments, and for a run without a complete model.
        Failure: if the hub refuses the upload.
    """
    run, to, private = _parse(words)
    model, card = run / "model", run / "README.md"
    if not (model / "config.json").is_file():
        what = "has no model that transformers can load"
        hint = "Prefix adapters and fitted models cannot be pushed." if model.is_dir() else "The run did not finish."
        raise UserError(Problem(str(run), what, "command line", hint))
    import huggingface_hub  # here, because the import takes a second

    print(f"uploading {model} to {to}{' (private)' if private else ' (public)'}", flush=True)
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(to, private=private, exist_ok=True)
        api.upload_folder(repo_id=to, folder_path=model, commit_message=f"llmft: {run.parent.name}")
        if card.is_file():
            api.upload_file(
                repo_id=to, path_or_fileobj=card, path_in_repo="README.md", commit_message="llmft: the card"
            )
    except (OSError, ValueError) as error:  # errors of requests and of huggingface_hub are OSErrors
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(
            f"the hub refused the upload: {first} Log in with hf auth login, and check that you may write to {to}."
        ) from error
    print(f"uploaded; use it with model.path={to}")


def _parse(words: list[str]) -> tuple[Path, str, bool]:
    """The run, the repository, and whether it is private."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    runs = [word for word in words if "=" not in word]
    if len(runs) != 1 or given.keys() - {"to", "private"} or given.get("private", "true") not in ("true", "false"):
        raise UserError(Problem(" ".join(words) or "push", "must be a run and to=OWNER/NAME", "command line", HINT))
    owner, _, name = given.get("to", "").partition("/")
    if not owner or not name or "/" in name:
        raise UserError(Problem("to", "must be given as OWNER/NAME", "command line", HINT))
    return find_run(runs[0]), given["to"], given.get("private") != "false"
