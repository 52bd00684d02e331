"""A student LLM and how it learns: loading, examples, batches, and the training of one LoRA expert.

>>> from dataclasses import replace
>>> import routedk_lite as rdk
>>> toy, sessions = rdk.get_profile("toy"), rdk.load_domain("toyshop", "train").sessions[:32]
>>> student, work = rdk.load_student(toy, device="cpu"), getfixture("tmp_path")
>>> brief = replace(toy.train, epochs=1)
>>> expert = rdk.train_expert(student, sessions, work / "expert", config=brief, progress=False)
>>> rdk.load_expert(student, expert.folder).peft_config["default"].r
8
"""
