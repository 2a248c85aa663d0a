"""How requests travel: HTTP on bare asyncio, gRPC. An answer is filled as its bytes arrive."""
