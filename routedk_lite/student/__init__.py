"""A student LLM and how it learns: loading, examples, batches, and the training of one LoRA expert."""
