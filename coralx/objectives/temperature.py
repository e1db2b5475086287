"""One number that calibrates a classifier: what its logits are to be divided by."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from coralx.objectives.calibration import logs
from coralx.objectives.scores import Labels, Probabilities

COLDEST, HOTTEST = 0.01, 100.0
"""Between these the temperature is looked for."""


def temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature T that minimises the negative log-likelihood of these rows (Guo et al. 2017,
    section 4.2), on validation: for validation itself it is fitted to the rows that it is judged
    by, which one number cannot spoil much; for the test split it is not."""
    values = logs(probabilities)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))
