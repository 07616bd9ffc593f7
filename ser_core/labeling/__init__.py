"""The job that labels a corpus: plan, pipeline, label store; it does not know the truth."""
