"""`python -m autocrossdim` is the command line."""

from autocrossdim.cli import main

if __name__ == "__main__":
    main()
