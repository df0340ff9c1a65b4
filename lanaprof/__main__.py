"""``python -m lanaprof``."""

from lanaprof.cli import main

if __name__ == "__main__":
    main(prog_name="lanaprof")
