"""The method: LoRA experts beside each other in a frozen student, weighed by a fusion. Whoever reads only this room
has read RouteDK, and beside its fusions (`fusion`) those of ten other papers with the same experts (`catalogue`).

>>> import peft, tempfile, routedk_lite as rdk
>>> student = lambda: rdk.load_student("toy", device="cpu").model
>>> folder = tempfile.mkdtemp()
>>> experts = [f"{folder}/{name}" for name in ("rules", "reasoning")]
>>> lora = peft.LoraConfig(r=4, target_modules="all-linear")
>>> for path in experts:
...     peft.get_peft_model(student(), lora).save_pretrained(path)
>>> routed = rdk.RoutedModel(student(), experts, rdk.Dynamic())
>>> _ = routed(student().dummy_inputs["input_ids"])
>>> routed.alpha[0, 0]  # the first layer: a new router gives even weights
array([0.5, 0.5], dtype=float32)
"""
