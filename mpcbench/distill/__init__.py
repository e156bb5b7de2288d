"""From SwiGLU to polynomials: calibration in closed form on a little text."""

from __future__ import annotations

import mpcbench.compat  # noqa: F401  (before any import of transformers in this room)
from mpcbench.distill.calibrate import calibrate, fit_layers, sensitivities
from mpcbench.distill.fit import Moments
from mpcbench.distill.texts import Texts, calibration_texts

__all__ = ["Moments", "Texts", "calibrate", "calibration_texts", "fit_layers", "sensitivities"]
