"""Experts: loaded strictly, measured before they are believed, hosted by Ray actors."""
