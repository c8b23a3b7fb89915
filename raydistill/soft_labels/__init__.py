"""What teachers say, where it comes from, and where it is kept."""
