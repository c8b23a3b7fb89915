"""Data sets and views: sources, the prepared table, deterministic augmentation, each model's own preparation."""
