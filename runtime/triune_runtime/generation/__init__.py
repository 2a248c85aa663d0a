"""From a request to its tokens: what runs next, what is chosen, what of it may be handed out. No threads, no Triton."""
