"""`python -m morl` is the command `morl`."""

import sys

from morl.cli.main import main

sys.exit(main())
