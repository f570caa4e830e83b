"""What `benchmarks/run.py` measures: one file for each scenario, and the parts that they share."""
