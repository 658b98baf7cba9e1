"""Removing filters: what is weak (importance), what goes together (groups), how much (amounts), and taking it out (removal)."""
