"""Engines whose KV cache lies in slots of a device's memory, whatever compiled them."""
