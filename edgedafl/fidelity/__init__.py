"""How faithful a model is to its teacher on real inputs: predicted without data, or measured on pictures.

*Fidelity* is the share of real inputs on which a model gives the teacher's class.
"""

from edgedafl.fidelity.prediction import Predictor, measured_band
from edgedafl.fidelity.signals import Comparison, Signals, compare_answers

__all__ = ["Comparison", "Predictor", "Signals", "compare_answers", "measured_band"]
