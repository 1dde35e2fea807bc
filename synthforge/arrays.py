"""Names for the types of arrays in annotations. Shapes stand behind the name of a variable: `score_NK` is (N, K)."""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
