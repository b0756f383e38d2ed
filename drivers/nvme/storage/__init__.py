"""Namespaces as a program uses them: blocking, in batches and by asyncio."""
