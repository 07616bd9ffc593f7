"""A run's history → lines and a bar on standard error; it does not know where it comes from."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ser_core.training.run_folder import History


class EpochDisplay:
    """A line per epoch, and a bar if standard error is a terminal."""

    def __init__(self, epochs: int, history: History) -> None:
        """Prepares the display.

        Args:
            epochs: how many the run has in all.
            history: the epochs of earlier runs of the same command, which are not shown.
        """
        self._epochs, self._shown = epochs, len(history)
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=epochs, completed=self._shown)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, history: History) -> None:
        """Prints the epochs that are new, and moves the bar."""
        for row in history[self._shown :]:
            self._bar.console.print(
                f"epoch {row['epoch']} of {self._epochs}: loss {row['loss']:.4f}, accuracy"
                f" {row['accuracy']:.3f}; validation loss {row['validation_loss']:.4f}, accuracy"
                f" {row['validation_accuracy']:.3f}, UAR {row['validation_uar']:.3f};"
                f" {row['seconds']:.0f} s"
            )
        self._shown = len(history)
        self._bar.update(self._task, completed=self._shown)
