"""`python -m steer`: the command line where `steer` is not on the path."""

from steer.cli import main

if __name__ == "__main__":
    main()
