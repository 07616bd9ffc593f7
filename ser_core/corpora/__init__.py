"""Recordings with truth: published layouts, manifests, splits; it decodes no audio."""
