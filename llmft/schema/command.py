"""The commands: their help, and the keys that each one accepts."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command of `llmft`."""

    what: str
    """What it does, in one line of the help."""
    keys: tuple[str, ...] = ()
    """For a command that works from a run: the keys that may be set. Training has decided all others."""
    about: str = ""
    """The description on its help page, a few sentences."""
    used: tuple[str, ...] = ()
    """The keys that its help page explains: the most common ones."""
    examples: tuple[str, ...] = ()
    """The examples on its help page."""
    trains: bool = False
    """Whether it trains a model."""

    @property
    def needs_run(self) -> bool:
        """Whether its first argument is a run."""
        return bool(self.keys)


COMMANDS = {
    "finetune": Command(
        "train a model on labeled rows, evaluate it, and write a run folder",
        trains=True,
        about="Checks the whole config, then all data, and only then trains. Validation rows select the best "
        "checkpoint, test rows give the final metrics. If there are no files for them, shares of train are held out. "
        "To train on your own file, write dataset.train=FILE.",
        used=(
            "dataset.train",
            "dataset.validation",
            "dataset.test",
            "dataset.columns",
            "model.path",
            "model.freeze",
            "optimizer.lr",
            "trainer.epochs",
            "trainer.batch_size",
            "seed",
            "name",
            "run.dir",
            "resume",
            "smoke",
            "show",
        ),
        examples=(
            "llmft finetune +recipe=bert_textcls",
            "llmft finetune +recipe=bert_textcls dataset.train=mine.csv optimizer.lr=3e-5",
            "llmft finetune +recipe=bert_textcls --cfg job",
            "llmft finetune -m +recipe=bert_textcls optimizer.lr=1e-5,3e-5 seed=0,1,2",
            "llmft finetune +recipe=tabular_mlp dataset.folds=5",
            "llmft finetune +recipe=tabular_mlp search=tpe 'optimizer.lr=log(1e-5,1e-1)'",
        ),
    ),
    "pretrain": Command(
        "train a language model from scratch, on raw text",
        trains=True,
        about="Trains a tokenizer and a model on text files: task=causal_lm, masked_lm, or span_corruption, with any "
        "architecture in any size. Training joins the documents and cuts them into blocks of task.block tokens; "
        "evaluation reads each document separately. model.path=RUN continues from the weights of a run, on new text "
        "too; llmft finetune model.path=RUN fine-tunes them for a task.",
        used=(
            "dataset.train",
            "dataset.test",
            "model.architecture",
            "model.config",
            "model.path",
            "optimizer.lr",
            "trainer.max_steps",
            "trainer.batch_size",
            "seed",
            "name",
            "run.dir",
            "resume",
            "smoke",
        ),
        examples=(
            "llmft pretrain +recipe=gpt_clm",
            "llmft pretrain +recipe=bert_mlm task.whole_word=true trainer.max_steps=5000",
            "llmft pretrain +recipe=gpt_clm model.path=outputs/gpt_clm/RUN optimizer.lr=1e-4",
        ),
    ),
    "eval": Command(
        "evaluate a finished run, on its own test rows or on new ones",
        keys=(
            "dataset",
            "ensemble",
            "generation",
            "hardware",
            "name",
            "run.dir",
            "seed",
            "trainer.eval_batch_size",
            "model.trust_remote_code",
        ),
        about="Starts from the config of RUN. dataset=OPTION replaces the dataset, but keeps the columns of RUN. "
        "Writes a new run folder with metrics, predictions, and a report.",
        used=("dataset.test", "dataset.columns", "dataset.encoding", "run.dir", "trainer.eval_batch_size"),
        examples=(
            "llmft eval outputs/tickets/RUN",
            "llmft eval outputs/tickets/RUN dataset=csv dataset.test=new.csv",
            "llmft eval RUN RUN RUN ensemble=mean",
        ),
    ),
    "predict": Command(
        "answer new rows with a finished run: a file, standard input, or one text",
        keys=(
            "predict",
            "generation",
            "dataset.columns",
            "dataset.corpus",
            "dataset.encoding",
            "dataset.ignore",
            "dataset.sheet",
            "dataset.query",
            "dataset.field",
            "dataset.separator",
            "hardware",
            "seed",
            "trainer.eval_batch_size",
            "model.trust_remote_code",
        ),
        about="Writes the answers in the order of the rows, while the input is still being read. They are the same as "
        "those of eval. A row that cannot be answered gets an error in place of an answer, and the others continue; if "
        "no row can be answered, the command fails. Labels in the input are ignored. Standard output holds only "
        "answers, stderr the number of them. No run folder is written.",
        used=(
            "predict.input",
            "predict.input_format",
            "predict.text",
            "predict.text_pair",
            "predict.image",
            "predict.row",
            "predict.output",
            "predict.format",
            "predict.keep",
            "dataset.columns",
        ),
        examples=(
            "llmft predict outputs/tickets/RUN predict.input=new.csv predict.output=answers.csv",
            "llmft predict outputs/tickets/RUN predict.text='It broke after a day.'",
            "llmft predict outputs/customers/RUN 'predict.row={age: 39, job: clerk}'",
            "llmft predict outputs/insects/RUN predict.input=photos",
            "tail -f log.txt | llmft predict outputs/tickets/RUN predict.input_format=txt",
        ),
    ),
    "chat": Command(
        "chat with a finished run, in a terminal or over a pipe",
        keys=("chat", "generation", "hardware", "seed", "model.trust_remote_code"),
        about="For runs of task=instruction and task=preference, and for language models with a chat template. Answers "
        "appear token by token. Type /system TEXT, /reset, /history, /help, or /exit for commands; Ctrl-C stops an "
        "answer. The system prompt is that of training unless chat.system is set. If a conversation is longer than the "
        "model can read, its oldest turns are left out. Over a pipe, each line is a message, and standard output holds "
        "only answers. With an address in place of the run, a model of llmft serve answers.",
        used=("chat.system", "generation.max_new_tokens", "generation.sample", "generation.temperature", "seed"),
        examples=(
            "llmft chat outputs/llm_chat/RUN",
            "llmft chat outputs/llm_chat/RUN chat.system='Answer in one word.' generation.max_new_tokens=200",
            "printf 'Hello!\\nAnd now?\\n' | llmft chat outputs/llm_chat/RUN",
            "llmft chat http://127.0.0.1:8000",
        ),
    ),
    "monitor": Command(
        "compare new rows with those that a finished run was not trained on",
        keys=(
            "dataset",
            "generation",
            "hardware",
            "name",
            "run.dir",
            "seed",
            "trainer.eval_batch_size",
            "model.trust_remote_code",
        ),
        about="Answers the rows of dataset.test, which need no labels, and compares inputs and answers with "
        "RUN/model/reference.json, which training has left. Says what differs by more than chance, and writes a "
        "report. It exits with 0 whether rows have drifted or not: --json lists what has, as metrics.drift.alarms.",
        used=("dataset.test", "dataset.columns", "dataset.encoding", "run.dir", "trainer.eval_batch_size"),
        examples=(
            "llmft monitor outputs/tickets/RUN dataset=csv dataset.test=new.csv",
            "llmft monitor tickets-onnx dataset=json dataset.test=requests.jsonl",
        ),
    ),
    "serve": Command(
        "answer requests over HTTP with a finished run or an export",
        keys=("serve", "generation", "hardware", "seed", "model.trust_remote_code"),
        about="Answers POST /predict as predict does, with an API page at /docs, and the Open Inference Protocol at "
        "/v2. Prints the address and stays until Ctrl-C or SIGTERM, which let requests in progress finish. SIGHUP "
        "reads the model again: a folder of runs means its newest finished run. An ONNX export is served without "
        "torch. Listens on this machine alone unless serve.host says otherwise; then a key is required.",
        used=("serve.port", "serve.host", "serve.models", "serve.workers", "serve.key_file", "serve.timeout_s"),
        examples=(
            "llmft serve outputs/tickets/RUN",
            "llmft serve tickets-onnx serve.port=9000",
            "llmft serve 'serve.models={tickets: outputs/tickets, toxic: toxic-onnx}'",
        ),
    ),
    "export": Command(
        "write the model of a finished run for another runtime, and check its answers",
        keys=("export", "dataset", "name", "run.dir", "trainer.eval_batch_size", "model.trust_remote_code"),
        about="Writes the model, loads it again, and compares its outputs with the original's on test or validation "
        "rows, in several batch sizes and lengths. If they differ by more than the limit, the export fails and leaves "
        "no files. eval and predict accept the folder like a run.",
        used=("export.format", "export.precision", "export.max_loss", "run.dir"),
        examples=(
            "llmft export outputs/tickets/RUN run.dir=tickets-onnx",
            "llmft export outputs/tickets/RUN export.precision=int8",
            "llmft eval tickets-onnx dataset=csv dataset.test=new.csv",
        ),
    ),
}

WITHOUT_CONFIG = {
    "runs": Command(
        "list, compare, reproduce, and remove runs, and free disk space",
        about="Lists the runs in outputs, newest first. Words and name=, command=, status=, model=, data= select runs; "
        "sort= orders them by when, size, name, or a metric. `compare` shows how configs and metrics differ and "
        "whether the difference on the test rows is significant (exact McNemar test, or a paired bootstrap), and "
        "writes a page. `reproduce` repeats a run on the same data and says whether all digits are the same. "
        "`remove` asks first; `clean` only deletes with yes=true. --json prints the result as JSON.",
        examples=(
            "llmft runs",
            "llmft runs name=tickets sort=accuracy",
            "llmft runs compare tickets outputs/tickets/RUN",
            "llmft runs reproduce tickets",
            "llmft runs remove tickets/RUN",
            "llmft runs clean",
            "llmft runs clean checkpoints yes=true",
        ),
    ),
    "explain": Command(
        "show the value of a key, every place that set it, and why the last one won",
        about="Give one or more keys, or sections such as optimizer, and after them the overrides of a command, or a "
        "run. Without a command it is the recipe's, or finetune. Each place is a file with a line, or the command "
        "line; the last one wins. --json prints the same as JSON.",
        examples=(
            "llmft explain optimizer.lr",
            "llmft explain optimizer.lr +recipe=bert_textcls optimizer=sgd",
            "llmft explain trainer model.path pretrain +recipe=gpt_clm",
            "llmft explain optimizer.lr outputs/bert_textcls/RUN",
            "llmft explain dataset outputs/tickets/RUN dataset=csv dataset.test=new.csv",
        ),
    ),
    "recipes": Command(
        "list the recipes, show one, or copy one to edit",
        about="A recipe is a YAML file, recipes/NAME.yaml, that composes a whole experiment. Recipes in ./recipes win "
        "over those of llmft. `copy` writes to ./recipes, under the same name or a new one, and never overwrites.",
        examples=("llmft recipes", "llmft recipes show bert_textcls", "llmft recipes copy bert_textcls mine"),
    ),
    "push": Command(
        "upload the model of a finished run to a hub",
        about="Uploads RUN/model and the model card, and no data. The repository is private unless you write "
        "private=false. Log in first: `hf auth login`. HF_ENDPOINT names another hub of the same kind.",
        examples=("llmft push tickets to=OWNER/NAME", "llmft push outputs/tickets/RUN to=OWNER/NAME private=false"),
    ),
    "completion": Command(
        "print the completion script for your shell",
        about="For bash, zsh, or fish. It completes commands, recipes, groups and their options, keys and their "
        "values, run folders, and files.",
        examples=(
            'eval "$(llmft completion bash)"      # in ~/.bashrc',
            'eval "$(llmft completion zsh)"       # in ~/.zshrc, after compinit',
            "llmft completion fish > ~/.config/fish/completions/llmft.fish",
        ),
    ),
}
"""Commands without a config and without a run folder. Files of front/ answer them."""
