"""Figures and HTML pages for every job; it computes no metric."""
