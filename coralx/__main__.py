"""`python -m coralx` is the command `coralx`."""

import os
import sys

if __name__ == "__main__":
    # `python -m` looks for modules in the working folder first, where a file may have the name of a
    # library; the command `coralx` does not.
    try:
        here = ("", os.getcwd())
    except OSError:  # it no longer exists, which the command reports
        here = ("", "")
    if sys.path and not sys.flags.safe_path and sys.path[0] in here:
        del sys.path[0]

    from coralx.cli import main

    main()
