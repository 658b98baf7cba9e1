"""Tables and plots from the files that a run wrote. Imports no TensorFlow."""
