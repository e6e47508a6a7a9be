"""Fine-tune a model of your own on rows of your own: does symmetric noise help?

    python examples/own_model_and_data.py MODEL ROWS.jsonl QUESTION ANSWER

MODEL is a Hugging Face folder or name. QUESTION and ANSWER are the names of the two columns. A
fifth of the rows is kept for judging. Results go to runs/own.
"""

import random
import sys
from pathlib import Path

import symnoise_ray

SPACE = Path(__file__).with_name("own_question.yaml")


def split(rows: Path, folder: Path) -> tuple[Path, Path]:
    """Shuffle the rows, and write training rows and prompts as two files."""
    lines = rows.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)
    kept = len(lines) // 5
    folder.mkdir(parents=True, exist_ok=True)
    train, prompts = folder / "train.jsonl", folder / "prompts.jsonl"
    train.write_text("\n".join(lines[kept:]) + "\n", encoding="utf-8")
    prompts.write_text("\n".join(lines[:kept]) + "\n", encoding="utf-8")
    return train, prompts


def main(model: str, rows: str, question: str, answer: str) -> None:
    """Run the sweep, and print what came out."""
    train, prompts = split(Path(rows), Path("runs/own-data"))
    columns = {"instruction": question, "output": answer}
    settings = {
        "model.name": model,
        "data.train": str(train),
        "data.eval_prompts": str(prompts),
        "data.fields": columns,
        "data.prompt_fields": columns,
    }
    result = symnoise_ray.run(SPACE, settings, output="runs/own")
    for trial in result.trials:
        outcome = f"clean loss {trial['clean_loss']:.3f}" if trial.is_done else trial.reason
        print(f"{trial.trial:<26} {trial.label:<24} {outcome}")
    print(result.verdict.sentence)
    print(f"report: {result.paths.report}")


if __name__ == "__main__":  # a plain script needs this line around what it runs
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
