"""What a trained or built network costs and does. Reads networks; changes no weights."""
