"""What several teachers of a task say together: weights for each teacher and row, and the fused soft target."""
