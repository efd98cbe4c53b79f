"""`python -m cuboid.node`: the node agent's process."""

import sys

from cuboid.node.main import main

sys.exit(main())
