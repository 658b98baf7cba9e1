"""YAML documents: schema, strict loading, overrides, positions of errors. No shapes are worked out here. No TensorFlow."""
