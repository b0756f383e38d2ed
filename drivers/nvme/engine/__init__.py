"""Queue pairs: the C engine, its memory and doorbells, and waiting for what it did."""
