"""Keras layers that the papers need. They take plain arguments and know no spec."""
