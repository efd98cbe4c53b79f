"""`python -m cuboid.server`."""

import sys

from cuboid.server.main import main

sys.exit(main())
