"""What is known before anything runs: stages, what is cached, what fits into memory, what methods need. No TensorFlow here."""
