"""URIs and bytes: list, read and write files; it does not know what they mean."""
