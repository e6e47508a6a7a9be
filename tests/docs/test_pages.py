"""What follows a page reads it as a reader does, and notices what differs."""

import pytest

from tests.docs.pages import Command, File, steps, unlike

PAGE = """
Save this as `a.yaml`:

```yaml
name: a
```

```console
$ ls
a.yaml
$ ls \\
    b
... no such file
exit status 2
```

```text
$ not a command
```
"""


def test_a_page_is_commands_and_files_in_their_order() -> None:
    assert steps(PAGE) == [
        File("a.yaml", "name: a\n"),
        Command("ls", ["a.yaml"], 0),
        Command("ls \\\n    b", ["... no such file"], 2),
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a", "b"], ["a", "b"]),
        (["a 1.5 s"], ["a   27.25 s"]),
        (["a ..."], ["a ..."]),
        (["...", "c"], ["a", "b", "c"]),
        (["a", "..."], ["a", "b", "c"]),
        (["a", "...", "c", "..."], ["a", "b", "c"]),
        ([], []),
    ],
)
def test_what_a_page_shows_may_differ_where_it_says_so(
    shown: list[str], printed: list[str]
) -> None:
    assert unlike(shown, printed) == ""


@pytest.mark.parametrize(
    ("shown", "printed", "why"),
    [
        (["a"], ["b"], "the page shows 'a', but there came ['b']"),
        (["a"], [], "the page shows 'a', but there came nothing"),
        (["a"], ["a", "b"], "the page does not show ['b']"),
        (["a", "b"], ["b", "a"], "the page shows 'a', but there came ['b', 'a']"),
        (["...", "c"], ["a", "b"], "the page shows 'c', but there came ['a', 'b']"),
        (["...", "a"], ["a", "b"], "the page does not show ['b']"),
        (["a ..."], ["a b"], "the page shows 'a ...', but there came ['a b']"),
        (["2 trials"], ["3 trials"], "the page shows '2 trials', but there came ['3 trials']"),
    ],
)
def test_any_other_difference_is_noticed(shown: list[str], printed: list[str], why: str) -> None:
    assert unlike(shown, printed) == why
