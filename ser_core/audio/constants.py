"""What the model hears: how fast it is sampled, how much of it at a time; it computes nothing."""

SAMPLING_RATE = 16_000  # Hz, what the model was trained on
SEGMENT_SECONDS = 6.0  # the card's `duration`
SEGMENT_SAMPLES = 96_000
FULL_SCALE = 32_768  # of 16-bit samples: as floats they are divided by it
