"""`python -m dspy_cachectl` is the command line."""

from dspy_cachectl.cli import main

if __name__ == "__main__":
    main()
