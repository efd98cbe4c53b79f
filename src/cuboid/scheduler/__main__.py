"""`python -m cuboid.scheduler`."""

import sys

from cuboid.scheduler.main import main

sys.exit(main())
