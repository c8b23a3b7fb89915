"""The step, the loop that a Ray Train worker runs, and its launch."""
