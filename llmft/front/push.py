"""`llmft push RUN to=OWNER/NAME`: upload the model of a finished run, with its card, to a hub. Nothing else uploads."""

from pathlib import Path

from llmft.runs.index import find_run
from llmft.schema.problem import Failure, Problem, UserError

HINT = "Write llmft push RUN to=OWNER/NAME, and private=false for all to see it."


def run(words: list[str]) -> None:
    """Upload RUN/model, and RUN/README.md as its card, into a repository that is made if it is not there.

    Who uploads is a matter of `hf auth login` or HF_TOKEN, and where to of HF_ENDPOINT; nothing of them is kept.

    Raises:
        UserError: for other words, and a run without a whole model.
        Failure: if the hub does not take it.
    """
    run, to, private = _wanted(words)
    model, card = run / "model", run / "README.md"
    if not (model / "config.json").is_file():
        what = "has no model that others could load"
        hint = "A prefix, and a model that is fitted, stay here." if model.is_dir() else "The run did not finish."
        raise UserError(Problem(str(run), what, "command line", hint))
    import huggingface_hub  # takes a second

    print(f"uploading {model} to {to}{' (private)' if private else ', for all to see'}", flush=True)
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(to, private=private, exist_ok=True)
        api.upload_folder(repo_id=to, folder_path=model, commit_message=f"llmft: {run.parent.name}")
        if card.is_file():
            api.upload_file(
                repo_id=to, path_or_fileobj=card, path_in_repo="README.md", commit_message="llmft: the card"
            )
    except (OSError, ValueError) as error:  # those of requests and of the hub are OSErrors
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(
            f"the hub did not take it: {first} Are you logged in (`hf auth login`), and is {to} yours?"
        ) from error
    print(f"{to} holds the model now; take it up by model.path={to}")


def _wanted(words: list[str]) -> tuple[Path, str, bool]:
    """The run, the repository, and whether it is private."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    runs = [word for word in words if "=" not in word]
    if len(runs) != 1 or given.keys() - {"to", "private"} or given.get("private", "true") not in ("true", "false"):
        raise UserError(Problem(" ".join(words) or "push", "is not a run with a place", "command line", HINT))
    owner, _, name = given.get("to", "").partition("/")
    if not owner or not name or "/" in name:
        raise UserError(Problem("to", "must be given as OWNER/NAME", "command line", HINT))
    return find_run(runs[0]), given["to"], given.get("private") != "false"
