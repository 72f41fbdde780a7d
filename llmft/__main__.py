"""`python -m llmft` is the command `llmft`."""

from llmft.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
