"""From a model to bundles: decoding, votes, choices among samples, partitions, baselines.

>>> import routedk_lite as rdk
>>> model, tokenizer, _ = rdk.load_student("toy", device="cpu")
>>> some = rdk.load_domain("toyshop", "test").sessions[:2]
>>> samples = rdk.sample_bundles(model, tokenizer, some, n=4, progress=False)
>>> [len(one.drawn) for one in samples]
[4, 4]
>>> 0 <= rdk.vote(samples[0].drawn, samples[0].greedy).share <= 1
True
"""
