"""Beginnings of texts of many kinds, for models that know some English."""

from __future__ import annotations

PROMPTS = [
    "The capital of France is", "Water boils at", "def fibonacci(n):", "Once upon a time, in a small village,", "1, 2, 3, 4,",
    "The three primary colors are", "In 1969, astronauts", "Dear Sir or Madam,", "import numpy as np\n",
    "The opposite of hot is",
    "My favourite food is", "Photosynthesis is the process", "To be or not to be,", "SELECT name FROM", "The largest planet",
    "A triangle has", "Q: What is 7 times 8?\nA:", "El perro de mi vecino", "The stock market", "Roses are red,",
]  # fmt: skip
