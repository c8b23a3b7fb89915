"""What a run would ask of a cluster, where it would go and how long it would take: sums, without Ray or torch."""
