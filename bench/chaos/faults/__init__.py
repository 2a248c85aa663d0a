"""How each fault is done; `table` lists them."""
