"""Trees as Keras models: building, running them layer by layer, taking filters out, evaluating, timing. Knows no trainer."""
