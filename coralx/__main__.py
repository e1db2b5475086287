"""`python -m coralx` is the command `coralx`."""

from coralx.cli import main

if __name__ == "__main__":
    main()
