"""Rankings, metrics, slices, intervals, comparisons, reports; the verb `vitrail.evaluate` stands on them."""
