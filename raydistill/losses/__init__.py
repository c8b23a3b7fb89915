"""Pure tensor functions: the formulas of distillation, one a file."""
