"""From a model to bundles: decoding, votes, choices among samples, partitions, baselines."""
