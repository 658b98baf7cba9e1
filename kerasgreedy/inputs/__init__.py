"""What a phase reads: images through the frozen prefix, or features cached from it."""
