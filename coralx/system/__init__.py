"""The machine under CoralX: files, signals, processes, memory, GPUs, packages."""
