"""effstilts: efficient cross-lingual transfer through English intermediate-task training (Phang et al. 2020)."""

from effstilts.errors import EffstiltsError

__version__ = "0.1.0"
__all__ = ["EffstiltsError", "__version__"]
