"""What only chapters need: their set-up, figures, exercises and the router explorer.

>>> import routedk_lite as rdk
>>> from routedk_lite.book.plots.task import session_figure
>>> session = rdk.load_domain("toyshop", "test").sessions[0]
>>> figure = session_figure(session, [{1, 2}])
>>> figure.axes[0].get_title() or "products and bundles"
'x'
"""
