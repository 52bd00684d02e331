"""A student LLM and how it learns: loading, examples, batches, and the training of one LoRA expert.

>>> import dataclasses, tempfile, routedk_lite as rdk
>>> toy, folder = rdk.get_profile("toy"), tempfile.mkdtemp() + "/expert"
>>> student = rdk.load_student(toy, device="cpu")
>>> some = rdk.load_domain("toyshop", "train").sessions[:32]
>>> brief = dataclasses.replace(toy.train, epochs=1)
>>> _ = rdk.train_expert(student, some, folder, config=brief, progress=False)
>>> rdk.load_expert(student, folder).peft_config["default"].r
8
"""
