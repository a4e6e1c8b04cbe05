"""`python -m labserver`."""

import sys

from labserver.cli import main

sys.exit(main())
