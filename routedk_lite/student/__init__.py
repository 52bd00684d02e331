"""A student LLM and how it learns: loading, examples, batches, and the training of one LoRA expert.

>>> import dataclasses, tempfile, routedk_lite as rdk
>>> toy, sessions = rdk.get_profile("toy"), rdk.load_domain("toyshop", "train").sessions[:32]
>>> student, folder = rdk.load_student(toy, device="cpu"), tempfile.mkdtemp() + "/expert"
>>> brief = dataclasses.replace(toy.train, epochs=1)
>>> expert = rdk.train_expert(student, sessions, folder, config=brief, progress=False)
>>> rdk.load_expert(student, folder).peft_config["default"].r
8
"""
