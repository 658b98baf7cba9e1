"""Alternation between weights and support masks (support paper), and networks run under masks."""
