"""What was learned and how it conflicts: learning curves, gradients, overlap of updates, controls of the router.

>>> import routedk_lite as rdk
>>> from routedk_lite.analysis.diagnostics import ContentFree
>>> shop = {split: rdk.load_domain("toyshop", split).sessions for split in ("train", "test")}
>>> blind = ContentFree(shop["train"])  # knows how bundles are distributed, and not one title
>>> blind.nats(shop["test"][0]) > 0
True
"""
