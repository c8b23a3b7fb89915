"""The sweep: a space file, Optuna's samplers, Ray Tune's trials; teachers and soft labels are paid for once."""
