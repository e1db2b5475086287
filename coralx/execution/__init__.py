"""Where jobs run: executors behind one Protocol, and the worker process."""
