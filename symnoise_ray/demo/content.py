"""Where the files of the embedded demo lie."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def model_dir() -> Path:
    """Return the Hugging Face folder of the demo model and its tokenizer."""
    return _HERE / "model"


def train_file() -> Path:
    """Return the JSON lines file with the rows to fine-tune on."""
    return _HERE / "data" / "train.jsonl"


def eval_file() -> Path:
    """Return the JSON lines file with the prompts on which methods are compared and chosen."""
    return _HERE / "data" / "eval.jsonl"


def confirm_file() -> Path:
    """Return the JSON lines file with fresh prompts that confirm what was chosen."""
    return _HERE / "data" / "confirm.jsonl"
