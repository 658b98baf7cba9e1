"""A spec lowered to a tree of primitive layers: shapes, costs, which channels go together, rewriting. Imports no TensorFlow."""
