"""Numbers and verdicts: accuracy, latency, cost, drift, gate, report."""
