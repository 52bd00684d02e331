"""The method: LoRA experts beside each other in a frozen student, weighed by a fusion. Whoever reads only this room
has read RouteDK.

>>> import peft, tempfile, routedk_lite as rdk
>>> folder, new = tempfile.mkdtemp(), lambda: rdk.load_student("toy", device="cpu").model
>>> lora = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
>>> for name in ("rules", "reasoning"): peft.get_peft_model(new(), lora).save_pretrained(f"{folder}/{name}")
>>> routed = rdk.RoutedModel(new(), [f"{folder}/rules", f"{folder}/reasoning"], rdk.Dynamic())
>>> _ = routed(new().dummy_inputs["input_ids"])
>>> routed.alpha[0, 0]  # of the first text, in the first layer: a router that has not learned gives even weights
array([0.5, 0.5], dtype=float32)
"""
