"""What the records say: claims, verdicts, tables, and the page of the replication report.

>>> import routedk_lite as rdk
>>> from routedk_lite.report.claims import load_claims
>>> len(load_claims().claims)
13
>>> from routedk_lite.report.tables import results_table
>>> text = results_table(rdk.load_all("results"))
"""
