"""The method: LoRA experts beside each other in a frozen student, weighed by a fusion. Whoever reads only this room
has read RouteDK."""
