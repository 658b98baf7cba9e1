"""Model specs and recipes: schema, strict loading, overrides, shapes. Imports no TensorFlow."""
