"""Progress bars with rate and time left, on standard error; silent where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int, str], None]
"""Advance by so many steps, with a word on the state."""
Bar = Callable[[int, int], AbstractContextManager[Advance]]
"""(total steps, steps done already) -> a context that gives Advance."""


@contextmanager
def silent(total: int, done: int = 0) -> Iterator[Advance]:
    """No bar."""
    yield lambda steps, state: None


def bar(title: str, unit: str = "steps") -> Bar:
    """A bar named `title`: share done, rate in `unit` a second, time left and a word on the state."""

    @contextmanager
    def show(total: int, done: int = 0) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else f"? {unit}/s", style="dim")

        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}%"),
            Speed(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=False, refresh_per_second=4) as progress:
            task = progress.add_task(title, total=total, completed=done, state="")
            yield lambda steps, state: progress.update(task, advance=steps, state=state)

    return show
