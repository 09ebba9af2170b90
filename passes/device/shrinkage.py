"""How much of a fitted correction to keep, so that one fitted on few samples does no harm.

A correction lowers the error of the samples that it is fitted on, whatever they are. Fitted on all but some, its
prediction `p` of the error `e` of those left out shows how much of it holds there:

    share = sum p e / sum p p,   less one standard error, within 0 .. 1

the slope of the errors on their predictions, which lowers the errors of those left out most. It goes to 1 as samples become
many, and is 0 where errors do not repeat from sample to sample. Vectors of one sample are alike, so they are left out
together; a single sample shows nothing of what repeats, so nothing is kept.
Sources: the slope: Copas, J. R. Stat. Soc. B 45, 311 (1983), "Regression, prediction and shrinkage"; one standard
error: Breiman et al., Classification and Regression Trees (1984), section 3.4.3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def kept_share(products: Floats, squares: Floats, standard_errors: float = 1.0) -> float:
    """The share of a correction to keep, 0 to 1.

    Args:
        products: float64 [parts], for each part left out the sum of prediction times error.
        squares: float64 [parts], the same of the prediction squared.
        standard_errors: so many are taken off.
    """
    parts, size = len(products), float(squares.sum())
    if parts < 2 or not size > 0:
        return 0.0
    share = float(products.sum()) / size
    spread = np.sqrt(np.square(products - share * squares).sum() * parts / (parts - 1)) / size
    return float(np.clip(share - standard_errors * spread, 0.0, 1.0))
