"""What Triton's models are called, take and give, declared once; `render.py` writes the files that say so."""
