__version__ = "0.1.0"

import os
# OpenMP reads this once, when torch is loaded: threads that wait must not burn the core that another one needs
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
