"""The bounded front before Triton's KServe API: the HTTP port, the port of metrics and, where it must be, gRPC.

Triton's own parsers listen where nobody else can reach them. What comes in is read whole, within `limits.Limits`, checked and
sent on as one plain request; answers go through as they are, byte by byte. Knows no model and no OpenAI.
"""
