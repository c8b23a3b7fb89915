"""Before against after: measures, the report, its pictures."""
