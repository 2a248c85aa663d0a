"""The OpenAI-compatible API and its chat page: HTTP in front, the server's ensemble over gRPC behind.

Knows OpenAI's shapes and our client library; no model, no tokenizer, no Triton.
"""

__version__ = "0.1.0"
