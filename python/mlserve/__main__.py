"""`python -m mlserve`."""

from __future__ import annotations

import sys

from mlserve.cli import main

if __name__ == "__main__":
    sys.exit(main())
