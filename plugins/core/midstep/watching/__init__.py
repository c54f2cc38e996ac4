"""A process reward beside a plain request: its steps are found in the engine's core, and judged in another process."""
