"""Entry points: each turns flags into a config, makes one call and exits with its code."""
