"""The jobs that fine-tune a checkpoint and compare splits; they write no labels."""
