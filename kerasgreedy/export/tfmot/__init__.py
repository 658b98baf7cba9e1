"""Finishing by TensorFlow Model Optimization: twins in Keras 2. Imported by nothing else, and only when asked for."""
