"""What a teacher LLM knows, how it is asked, and how its knowledge is kept: rules, reasoning, patterns.

>>> import routedk_lite as rdk
>>> knowledge = rdk.load_knowledge("electronic")
>>> len(knowledge.rules), len(knowledge.reasoning)
(12, 623)
>>> knowledge.rules["R1"].text[:55]
'First decide what broad activity most of the session is'
"""
