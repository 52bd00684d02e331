"""From a model to bundles: decoding, votes, choices among samples, partitions, baselines.

>>> import routedk_lite as rdk
>>> student, test = rdk.load_student("toy", device="cpu"), rdk.load_domain("toyshop", "test").sessions[:2]
>>> samples = rdk.sample_bundles(student.model, student.tokenizer, test, n=4, progress=False)
>>> [len(one.drawn) for one in samples]
[4, 4]
>>> 0 <= rdk.vote(samples[0].drawn, samples[0].greedy).share <= 1
True
"""
