"""The model's queues: the slow Python path, and the C data path that is the same."""
