"""What a sweep says to the tracker: runs that start and end, their metrics, tables and files.

In: plans and results. Out: events in the journal.
"""

from __future__ import annotations

SCORES = (
    "win_rate",
    "discrete_win_rate",
    "length_controlled_win_rate",
    "standard_error",
    "n_total",
    "n_wins",
    "n_wins_reference",
    "n_draws",
    "n_invalid",
    "position_bias",
    "avg_length",
    "longer_rate",
    "n_judged",
    "num_answers",
    "length_mean",
    "length_median",
    "words_mean",
    "empty_rate",
    "refusal_rate",
    "distinct_rate",
    "compression_ratio",
    "num_diversity",
    "repetition_2",
    "log_diversity",
    "first_clean_loss",
    "num_answer_tokens",
    "num_passed_tokens",
    "num_passed_rows",
    "tokens_per_second",
    "peak_memory_gib",
    "flops_utilization",
    "micro_batch_size",
    "attempts",
)
