"""What `raydistill doctor` looks at: what was seen is plain data, and is judged by pure functions."""
