"""CoralX: multi-objective evolution of LoRA adapters, trained through stages of growing budget."""

__version__ = "0.1.0"
