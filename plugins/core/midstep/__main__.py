"""`python -m midstep` is `midstep`."""

import sys

from .command import main

sys.exit(main())
