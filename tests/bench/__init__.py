"""Benchmarks: `make bench`. Never part of `make test`.

One file holds one group of figures: a function marked with `@bench`, which yields `Line`s. A new
figure is a new function, and a new file is one more import in `__main__.py`.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # here, since it must be before torch is loaded
os.environ["TOKENIZERS_PARALLELISM"] = "false"
