"""A run's history → a line per epoch and the time left; it does not know where it comes from."""

from ser_core.console import clock, progress, say
from ser_core.training.run_folder import History


class EpochDisplay:
    """Says what each epoch has brought."""

    def __init__(self, epochs: int, history: History) -> None:
        """Prepares the display.

        Args:
            epochs: how many the run has in all.
            history: the epochs of earlier runs of the same command, which are not shown.
        """
        self._epochs, self._shown = epochs, len(history)

    def show(self, history: History) -> None:
        """Says what is new."""
        for row in history[self._shown :]:
            say(
                f"epoch {row['epoch']} of {self._epochs}: loss {row['loss']:.4f}, accuracy"
                f" {row['accuracy']:.3f}; validation loss {row['validation_loss']:.4f}, accuracy"
                f" {row['validation_accuracy']:.3f}, UAR {row['validation_uar']:.3f};"
                f" {row['seconds']:.0f} s"
            )
        self._shown = len(history)
        words = f"{self._shown} of {self._epochs} epochs"
        if history:
            left = (
                (self._epochs - self._shown) * sum(row["seconds"] for row in history) / self._shown
            )
            words += f", {clock(left)} left"
        progress(words, self._shown, self._epochs)
