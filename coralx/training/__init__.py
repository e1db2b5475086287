"""Adapters trained on a frozen base with torch. Imported by workers only."""

import logging

# PEFT imports it where it is installed, and then it tells of kernels that others may fetch.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
