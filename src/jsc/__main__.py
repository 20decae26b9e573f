"""`python -m jsc`."""

import sys

from jsc.cli.main import main

sys.exit(main())
