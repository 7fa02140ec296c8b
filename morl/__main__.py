"""`python -m morl` is the command `morl`."""

import sys

from morl.cli import main

sys.exit(main())
