"""A baseline: a labelling job written like the audio examples in Ray's documentation."""

import argparse
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from ser_core.models.card import SAMPLE_RATE, Card


class Label:
    """An actor that runs the card's model on batches padded to 6 s."""

    def __init__(self, checkpoint: str) -> None:
        self.card = Card(checkpoint)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Resamples and labels a batch of decoded recordings."""
        import librosa

        speeches = [
            librosa.resample(amplitude.mean(axis=0), orig_sr=rate, target_sr=SAMPLE_RATE)
            for amplitude, rate in zip(batch["amplitude"], batch["sample_rate"], strict=True)
        ]
        scores = self.card.scores_of_batch(speeches)
        return {"path": batch["path"], "label": scores.argmax(axis=1), "score": np.max(scores, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", help="text file with the path of one recording per line")
    parser.add_argument("output", help="folder for the labels, as Parquet")
    parser.add_argument("checkpoint", help="folder of the checkpoint")
    flags = parser.parse_args()
    with open(flags.paths, encoding="utf-8") as file:
        paths = file.read().splitlines()
    ray.init(include_dashboard=False)
    cores = int(ray.cluster_resources()["CPU"])
    (
        ray.data.read_audio(paths, include_paths=True)
        .map_batches(
            Label,
            fn_constructor_args=(flags.checkpoint,),
            batch_size=8,
            num_cpus=0.5,  # leaves the rest for reading; whole cores would leave none
            compute=ActorPoolStrategy(size=cores),
        )
        .write_parquet(flags.output)
    )


if __name__ == "__main__":
    main()
