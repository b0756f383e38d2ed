"""Where the model keeps its blocks: namespaces, and media under them."""
