"""A Triton backend named `cpu` that compiles nothing: TRITON_INTERPRET=1 runs every kernel before it would be asked."""
