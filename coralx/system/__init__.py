"""The machine: files, signals, processes, memory, GPUs, packages. Nothing here knows of LoRA."""
