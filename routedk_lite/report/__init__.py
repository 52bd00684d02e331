"""What the records say: claims, verdicts, tables, and the page of the replication report."""
