"""The job `verify`: labels compared with the model card's own script on the same recordings."""
