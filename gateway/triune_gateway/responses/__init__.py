"""OpenAI's Responses API: requests and answers in its shapes, and what is kept of them."""
