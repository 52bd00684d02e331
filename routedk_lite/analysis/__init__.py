"""What was learned and how it conflicts: learning curves, gradients, overlap of updates, controls of the router."""
