"""What does an operator cost here? Exporting, timing, and from the table to whole networks."""
