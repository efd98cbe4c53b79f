"""`python -m cuboid.controllers`."""

import sys

from cuboid.controllers.main import main

sys.exit(main())
