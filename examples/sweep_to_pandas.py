"""Read a sweep that is already there into pandas.

    python examples/sweep_to_pandas.py runs/quickstart

Prints one row per trial, the means of each noise type, and the comparisons of the confirmation.
"""

import sys

import symnoise_ray


def main(directory: str) -> None:
    """Print the trials of a sweep, and what the noise types did on average."""
    result = symnoise_ray.load(directory)
    trials = result.to_pandas()
    print(trials[["trial", "label", "status", "win_rate", "clean_loss"]].to_string(index=False))
    done = trials[trials["status"] == "done"]
    means = done.groupby(["part", "arm"])[["win_rate", "clean_loss"]].mean()
    print(means.round(3).to_string())
    for each in result.verdict.comparisons:
        low, high = each.interval_95
        print(f"{each.label}: {each.win_rate:.1%} [{low:.1%}, {high:.1%}] {each.against}")
    for each in result.verdict.decisions:
        print(f"{each.label}: {each.verdict}")


if __name__ == "__main__":  # a plain script needs this line around what it runs
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
