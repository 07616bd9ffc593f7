"""Emotion labels for large speech corpora: list, decode, classify, write."""
