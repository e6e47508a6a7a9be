"""The upstream check: tasks of lm-evaluation-harness that a fine-tuned model is asked."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section


class HarnessConfig(Section):
    """Tasks of lm-evaluation-harness, answered after training; needs the extra `harness`."""

    tasks: tuple[str, ...] = ()
    """Names of lm_eval's tasks or groups, such as `[arc_challenge, hellaswag, mmlu]`; none by
    default."""
    num_fewshot: int | None = Field(None, ge=0)
    """Solved examples before each question; null leaves it to the task, and so does a task that
    wants none."""
    limit: int | None = Field(None, ge=1)
    """Use only the first so many questions of each task."""
    batch_size: int = Field(8, ge=1)
    """Answers weighed together on one worker."""
    include_path: str | None = None
    """A folder with task files (*.yaml) of your own, which go before lm_eval's of the same name."""

    @model_validator(mode="after")
    def _tasks_are_asked_for(self) -> Self:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not self.tasks and value != field.default:
                raise ValueError(
                    f"harness.{name} has no meaning without harness.tasks, but got {value!r}; "
                    "name a task or leave it out"
                )
        return self
