"""The commands, and which of them work from a run."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command of `llmft`."""

    what: str
    """What it does, in a line of the help."""
    keys: tuple[str, ...] = ()
    """For a command that works from a run: the keys that may differ from it; training decided the others."""
    about: str = ""
    """What a user should know of it, a few sentences of its own help."""
    used: tuple[str, ...] = ()
    """The keys that its help explains: those that are written most."""
    examples: tuple[str, ...] = ()
    """Commands to start from, for its help."""
    trains: bool = False
    """Whether it makes a model out of training rows."""

    @property
    def of_a_run(self) -> bool:
        """Whether the word after it is a run's folder."""
        return bool(self.keys)


COMMANDS = {
    "finetune": Command(
        "train a model on data, score it, and leave a run folder",
        trains=True,
        about="Checks the whole configuration, then all of the data, and trains only then. Validation rows pick the "
        "best checkpoint, test rows give the final score; where there are no files for them, shares of train are put "
        "aside. For a file of your own, write dataset.train=FILE.",
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
        about="From files of text to a tokenizer and a model: task=causal_lm, masked_lm or span_corruption, and any "
        "architecture by its sizes. Documents are joined and cut into blocks of task.block tokens; scores are of each "
        "document by itself. model.path=RUN goes on with what a run left, on new text too, and llmft finetune "
        "model.path=RUN takes it up for a task.",
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
        "score a finished run, on its own data or on other data",
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
        about="Starts from RUN's own configuration; a dataset that is chosen replaces RUN's except for its columns. It "
        "leaves a run folder of its own, with scores, predictions and a report.",
        used=("dataset.test", "dataset.columns", "dataset.encoding", "run.dir", "trainer.eval_batch_size"),
        examples=(
            "llmft eval outputs/tickets/RUN",
            "llmft eval outputs/tickets/RUN dataset=csv dataset.test=new.csv",
            "llmft eval RUN RUN RUN ensemble=mean",
        ),
    ),
    "predict": Command(
        "answer new rows with a finished run: a file, standard input, or a text",
        keys=(
            "predict",
            "generation",
            "dataset.columns",
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
        about="Answers come in the order of the rows, while the input is still being read, and are those that eval "
        "gives. A row that cannot be answered gets an error in place of an answer, and the others go on; if no row can "
        "be answered, the command has failed. Labels in the input are not looked at. Standard output holds answers and "
        "nothing else, stderr says how many there are; no run folder is made.",
        used=(
            "predict.input",
            "predict.input_format",
            "predict.text",
            "predict.text_pair",
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
            "tail -f log.txt | llmft predict outputs/tickets/RUN predict.input_format=txt",
        ),
    ),
    "chat": Command(
        "talk with a finished run, turn after turn, in a terminal or over a pipe",
        keys=("chat", "generation", "hardware", "seed", "model.trust_remote_code"),
        about="For runs of instruction and preference, and language models with a chat template. Answers appear as "
        "they are written. /system TEXT, /reset, /history, /help and /exit are commands; Ctrl-C stops an answer. The "
        "system prompt is that of training, unless chat.system is given; the oldest turns are left out where the model "
        "has no room for them. Over a pipe each line is a message, and standard output holds answers and nothing else.",
        used=("chat.system", "generation.max_new_tokens", "generation.sample", "generation.temperature", "seed"),
        examples=(
            "llmft chat outputs/llm_chat/RUN",
            "llmft chat outputs/llm_chat/RUN chat.system='Answer in one word.' generation.max_new_tokens=200",
            "printf 'Hello!\\nAnd now?\\n' | llmft chat outputs/llm_chat/RUN",
        ),
    ),
    "export": Command(
        "write the model of a finished run for another runtime, and compare the two",
        keys=("export", "dataset", "name", "run.dir", "trainer.eval_batch_size", "model.trust_remote_code"),
        about="Writes the program, loads it back, and compares its answers with the original's on test or validation "
        "rows, in several shapes of batch and length. Beyond the limit it fails and leaves nothing. eval and predict "
        "take the folder like a run.",
        used=("export.format", "export.precision", "export.max_loss", "run.dir"),
        examples=(
            "llmft export outputs/tickets/RUN run.dir=tickets-onnx",
            "llmft export outputs/tickets/RUN export.precision=int8",
            "llmft eval tickets-onnx dataset=csv dataset.test=new.csv",
        ),
    ),
}

AT_ONCE = {
    "runs": Command(
        "list the runs, compare or reproduce some, and free the room that nobody needs",
        about="Lists the runs below outputs, the newest first; words and name=, command=, status=, model=, data= pick "
        "among them, sort= orders them by when, size, name or a metric. `compare` shows what differs, scores side "
        "by side, and whether the test rows can tell the runs apart (exact McNemar, or a paired bootstrap), and "
        "writes a page. `reproduce` does a run again on the same data and says whether all digits are the same. "
        "`remove` asks first, and `clean` frees nothing before yes=true. --json prints any of it as JSON.",
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
        "say what a key is worth, every place that set it, and why the last one won",
        about="Names one or more keys, or sections such as optimizer, and then what the configuration is made of: the "
        "words of a command, or a run. Without a command it is that of the recipe, or finetune. Each place is a file "
        "with its line, or the command line, from the weakest to the one that won. --json prints the same as JSON.",
        examples=(
            "llmft explain optimizer.lr",
            "llmft explain optimizer.lr +recipe=bert_textcls optimizer=sgd",
            "llmft explain trainer model.path pretrain +recipe=gpt_clm",
            "llmft explain optimizer.lr outputs/bert_textcls/RUN",
            "llmft explain dataset outputs/tickets/RUN dataset=csv dataset.test=new.csv",
        ),
    ),
    "recipes": Command(
        "list the recipes, show one, or copy one to start from",
        about="A recipe is a whole experiment by name, in recipes/NAME.yaml; those in ./recipes come before those of "
        "llmft. `copy` writes to ./recipes, under the same name or another, and never over a file.",
        examples=("llmft recipes", "llmft recipes show bert_textcls", "llmft recipes copy bert_textcls mine"),
    ),
    "push": Command(
        "upload the model of a finished run to a hub",
        about="Uploads RUN/model and the card, and nothing of the data. The repository is private unless private=false "
        "is written. Log in first: `hf auth login`. HF_ENDPOINT names another hub of the same kind.",
        examples=("llmft push tickets to=OWNER/NAME", "llmft push outputs/tickets/RUN to=OWNER/NAME private=false"),
    ),
    "completion": Command(
        "print what lets a shell complete commands, options and keys",
        about="For bash, zsh or fish. It completes commands, recipes, groups and their options, keys and their values, "
        "run folders and files.",
        examples=(
            'eval "$(llmft completion bash)"      # in ~/.bashrc',
            'eval "$(llmft completion zsh)"       # in ~/.zshrc, after compinit',
            "llmft completion fish > ~/.config/fish/completions/llmft.fish",
        ),
    ),
}
"""Commands that need no configuration and leave nothing: they are answered by a file of front/."""
