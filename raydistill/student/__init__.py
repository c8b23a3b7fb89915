"""The one small model: a stem per domain, a shared trunk, a head per task."""
