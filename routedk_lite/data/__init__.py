"""Sessions and bundles, the text a model reads and writes about them, and how good an answer is.

>>> import routedk_lite as rdk
>>> session = rdk.load_domain("toyshop", "test").sessions[0]
>>> print(rdk.build_prompt(session.titles[:2]), end="")
Products:
1. Norva linen apron, white
2. Orbis 1 watch, red
Bundles:
>>> answer = rdk.parse_answer("1 2", n_items=len(session))
>>> rdk.evaluate({session.id: answer.bundles}, [session]).f1
0.0
"""
