"""Studies: several runs that answer one question, and the table and pictures that they come to. They train nothing themselves."""
