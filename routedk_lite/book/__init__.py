"""What only chapters need: their set-up, figures, exercises and the router explorer.

>>> import routedk_lite as rdk
>>> from routedk_lite.book.plots.task import session_figure
>>> session = rdk.load_domain("toyshop", "test").sessions[0]
>>> figure = session_figure(session, [{1, 2}])
>>> sorted(text.get_text() for text in figure.axes[0].texts)[:2]
['1', '2']
"""
