"""``python -m mpcbench`` is the same program as ``mpcbench``."""

from mpcbench.cli import main

if __name__ == "__main__":
    main()
