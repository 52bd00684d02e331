"""What was learned and how it conflicts: learning curves, gradients, overlap of updates, controls of the router.

>>> import routedk_lite as rdk
>>> from routedk_lite.analysis.diagnostics import ContentFree
>>> train, test = (rdk.load_domain("toyshop", s) for s in ("train", "test"))
>>> blind = ContentFree(train)  # knows sizes of bundles, and no title
>>> blind.nats(test.sessions[0]) > 0
True
"""
