"""`python -m kerasgreedy`."""

from kerasgreedy.cli.main import main

if __name__ == "__main__":
    main()
