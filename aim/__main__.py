"""``python -m aim``."""

from aim.cli import main

if __name__ == "__main__":
    main()
