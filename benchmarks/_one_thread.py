"""Import this before numpy: one thread for every library, so that a ratio is one of methods and not of threads."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
