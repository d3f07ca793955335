"""`python -m kerassl` is the command `kerassl`."""

import sys

from kerassl.cli.main import main

sys.exit(main())
