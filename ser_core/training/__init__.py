"""Fine-tuning a checkpoint on a corpus with truth; it does not know how recordings are labelled."""
