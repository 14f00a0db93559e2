"""A server that draws steered pictures over HTTP, in the form of OpenAI's image API (extra ``serve``).

``app`` answers requests. ``dispatcher`` puts them in a bounded queue and hands them in batches to ``worker``, which
owns the one child process that holds the model (``drawing``). FastAPI is imported by ``app`` alone.
"""
