"""What a request may ask for besides its prompt: declared once, read from every client's names, checked, carried as JSON."""
