"""The upstream check: tasks of lm-evaluation-harness that a fine-tuned model answers."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section


class HarnessConfig(Section):
    """Tasks of lm-evaluation-harness, which every model answers after training; needs the extra
    `harness`."""

    tasks: tuple[str, ...] = ()
    """Names of lm_eval's tasks or groups of tasks, such as `[arc_challenge, hellaswag, mmlu]`. By
    default there are none."""
    num_fewshot: int | None = Field(None, ge=0)
    """Number of solved examples before each question. Null takes the task's own number. A task that
    is defined without examples is asked without them in any case."""
    limit: int | None = Field(None, ge=1)
    """Use only the first so many questions of each task. By default all are used."""
    batch_size: int = Field(8, ge=1)
    """Requests that one worker answers at the same time."""
    include_path: str | None = None
    """A folder with task files (*.yaml) of your own. They take precedence over lm_eval's tasks of
    the same name."""

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
