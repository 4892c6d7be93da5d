"""`python -m fleet.cli` is the `fleet` command."""

import sys

from fleet.cli.app import main

sys.exit(main())
